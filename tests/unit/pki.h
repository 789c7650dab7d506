/*
 * pki: keys and certificates made on the spot, as files of a test's directory.
 *
 * Nothing is returned on failure: a test that cannot make a key cannot go on.
 */
#ifndef KEYTRAIL_TEST_PKI_H
#define KEYTRAIL_TEST_PKI_H

#include <openssl/evp.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

struct pki_id {
	EVP_PKEY *key;
	X509 *cert;
};

struct pki_opts {
	const char *name;	     /* common name; NULL: an empty subject */
	const char *san;	     /* "DNS:localhost,IP:127.0.0.1", or NULL */
	const struct pki_id *issuer; /* NULL: it signs itself and is a CA */
	bool authority;		     /* a CA all the same */
	long from, to;		     /* seconds from now; 0, 0: yesterday to tomorrow */
};

static inline void
pki_extend(X509 *cert, int nid, const char *value)
{
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

	assert(e != NULL && X509_add_ext(cert, e, -1) == 1);
	X509_EXTENSION_free(e);
}

static inline struct pki_id
pki_make(const struct pki_opts *o)
{
	struct pki_id id = { EVP_EC_gen("P-256"), X509_new() };
	const struct pki_id *issuer = o->issuer != NULL ? o->issuer : &id;
	X509_NAME *name = X509_get_subject_name(id.cert);
	static long serial = 1000;
	long day = 24L * 3600;

	assert(id.key != NULL);
	X509_set_version(id.cert, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
	if (o->name != NULL)
		X509_NAME_add_entry_by_txt(
		    name, "CN", MBSTRING_UTF8, (const unsigned char *)o->name, -1, -1, 0);
	X509_set_issuer_name(id.cert, X509_get_subject_name(issuer->cert));
	X509_gmtime_adj(X509_getm_notBefore(id.cert), o->to != 0 ? o->from : -day);
	X509_gmtime_adj(X509_getm_notAfter(id.cert), o->to != 0 ? o->to : day);
	X509_set_pubkey(id.cert, id.key);
	pki_extend(id.cert, NID_basic_constraints,
	    o->issuer == NULL || o->authority ? "critical,CA:TRUE" : "CA:FALSE");
	if (o->san != NULL)
		pki_extend(id.cert, NID_subject_alt_name, o->san);
	assert(X509_sign(id.cert, issuer->key, EVP_sha256()) > 0);
	return id;
}

static inline void
pki_free(struct pki_id *id)
{
	EVP_PKEY_free(id->key);
	X509_free(id->cert);
}

/* Write <dir>/<name>.pem and <dir>/<name>.key, the key sealed where there is a passphrase. */
static inline void
pki_write(const struct pki_id *id, const char *dir, const char *name, const char *passphrase)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.pem", dir, name);
	f = fopen(path, "w");
	assert(f != NULL && PEM_write_X509(f, id->cert) == 1);
	fclose(f);
	snprintf(path, sizeof(path), "%s/%s.key", dir, name);
	f = fopen(path, "w");
	assert(f != NULL &&
	       PEM_write_PKCS8PrivateKey(f, id->key, passphrase != NULL ? EVP_aes_128_cbc() : NULL,
		   NULL, 0, NULL, (void *)(uintptr_t)passphrase) == 1);
	fclose(f);
}

/* A list of the issuer's that was made a minute ago and ends `to` seconds from now. */
static inline void
pki_write_crl(const struct pki_id *issuer, const struct pki_id *revoked, long to, const char *path)
{
	X509_CRL *crl = X509_CRL_new();
	ASN1_TIME *from = X509_gmtime_adj(NULL, -60), *until = X509_gmtime_adj(NULL, to);
	FILE *f = fopen(path, "w");

	assert(crl != NULL && f != NULL);
	X509_CRL_set_version(crl, X509_CRL_VERSION_2);
	X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer->cert));
	X509_CRL_set1_lastUpdate(crl, from);
	X509_CRL_set1_nextUpdate(crl, until);
	if (revoked != NULL) {
		X509_REVOKED *entry = X509_REVOKED_new();

		X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(revoked->cert));
		X509_REVOKED_set_revocationDate(entry, from);
		X509_CRL_add0_revoked(crl, entry);
	}
	assert(
	    X509_CRL_sign(crl, issuer->key, EVP_sha256()) > 0 && PEM_write_X509_CRL(f, crl) == 1);
	fclose(f);
	ASN1_TIME_free(from);
	ASN1_TIME_free(until);
	X509_CRL_free(crl);
}

#define PKI_NEVER LONG_MAX

/* The issuer's word of the certificate (V_OCSP_CERTSTATUS_...), of an hour before `to` seconds from now
 * until then, or of a minute ago until PKI_NEVER; with no issuer the word that it has nothing to say. */
static inline void
pki_write_ocsp(
    const struct pki_id *issuer, const struct pki_id *id, int status, long to, const char *path)
{
	OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
	ASN1_TIME *from = X509_gmtime_adj(NULL, to != PKI_NEVER ? to - 3600 : -60),
		  *until = to != PKI_NEVER ? X509_gmtime_adj(NULL, to) : NULL;
	OCSP_RESPONSE *response;
	FILE *f = fopen(path, "w");
	unsigned char *der = NULL;
	int n;

	if (issuer != NULL) {
		OCSP_CERTID *certid = OCSP_cert_to_id(EVP_sha1(), id->cert, issuer->cert);

		assert(OCSP_basic_add1_status(basic, certid, status, 0, from, from, until) != NULL);
		assert(
		    OCSP_basic_sign(basic, issuer->cert, issuer->key, EVP_sha256(), NULL, 0) == 1);
		OCSP_CERTID_free(certid);
	}
	response = OCSP_response_create(
	    issuer != NULL ? OCSP_RESPONSE_STATUS_SUCCESSFUL : OCSP_RESPONSE_STATUS_TRYLATER,
	    issuer != NULL ? basic : NULL);
	n = i2d_OCSP_RESPONSE(response, &der);
	assert(n > 0 && f != NULL && fwrite(der, 1, (size_t)n, f) == (size_t)n);
	fclose(f);
	OPENSSL_free(der);
	OCSP_RESPONSE_free(response);
	OCSP_BASICRESP_free(basic);
	ASN1_TIME_free(from);
	ASN1_TIME_free(until);
}

#endif
