#include "tls_internal.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SKEW_S 300 /* that clocks may be apart */

static bool
is_digest(const ASN1_OCTET_STRING *wanted, const unsigned char *digest, unsigned n)
{
	return ASN1_STRING_length(wanted) == (int)n &&
	       memcmp(ASN1_STRING_get0_data(wanted), digest, n) == 0;
}

/* Who issued the certificate, where that is sent with it; or NULL. */
static X509 *
issuer_in(SSL_CTX *ctx)
{
	STACK_OF(X509) *chain = NULL;

	SSL_CTX_get0_chain_certs(ctx, &chain);
	for (int i = 0; i < sk_X509_num(chain); i++)
		if (X509_check_issued(sk_X509_value(chain, i), SSL_CTX_get0_certificate(ctx)) ==
		    X509_V_OK)
			return sk_X509_value(chain, i);
	return NULL;
}

/* By the issuer's name, its key as far as that is known, and the number (RFC 6960 section 4.1.1). */
static bool
is_id_of(OCSP_CERTID *id, SSL_CTX *ctx)
{
	X509 *cert = SSL_CTX_get0_certificate(ctx), *issuer = issuer_in(ctx);
	unsigned char digest[EVP_MAX_MD_SIZE];
	ASN1_OCTET_STRING *name, *key;
	ASN1_INTEGER *serial;
	ASN1_OBJECT *hash;
	const EVP_MD *md;
	unsigned n;

	if (OCSP_id_get0_info(&name, &hash, &key, &serial, id) != 1 ||
	    (md = EVP_get_digestbyobj(hash)) == NULL ||
	    ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(cert)) != 0 ||
	    X509_NAME_digest(X509_get_issuer_name(cert), md, digest, &n) != 1 ||
	    !is_digest(name, digest, n))
		return false;
	return issuer == NULL ||
	       (X509_pubkey_digest(issuer, md, digest, &n) == 1 && is_digest(key, digest, n));
}

/* What the response says of the certificate, or NULL. */
static OCSP_SINGLERESP *
find_single(OCSP_BASICRESP *basic, SSL_CTX *ctx)
{
	for (int i = 0; i < OCSP_resp_count(basic); i++) {
		OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);

		/* OpenSSL's getter is not const, though it changes nothing. */
		if (is_id_of((OCSP_CERTID *)(uintptr_t)OCSP_SINGLERESP_get0_id(single), ctx))
			return single;
	}
	return NULL;
}

/* A client would take it for what it says, and one without an end for ever. */
static int
check_single(OCSP_SINGLERESP *single, struct tls_ocsp *out, const char *path, struct err *err)
{
	ASN1_GENERALIZEDTIME *from = NULL, *until = NULL;

	if (OCSP_single_get0_status(single, NULL, NULL, &from, &until) != V_OCSP_CERTSTATUS_GOOD)
		return err_set(
		    err, "%s: the OCSP response does not say that the certificate is good", path);
	if (until == NULL)
		return err_set(err, "%s: the OCSP response has no end (nextUpdate)", path);
	out->from = tlsfile_seconds_of(from);
	out->until = tlsfile_seconds_of(until);
	if (out->from > time(NULL) + SKEW_S)
		return err_set(err, "%s: the OCSP response is of the future (thisUpdate)", path);
	return 0;
}

static int
read_single(
    OCSP_RESPONSE *response, SSL_CTX *ctx, struct tls_ocsp *out, const char *path, struct err *err)
{
	OCSP_BASICRESP *basic = NULL;
	OCSP_SINGLERESP *single;
	int rc = -1;

	if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL ||
	    (basic = OCSP_response_get1_basic(response)) == NULL) {
		err_set(err, "%s: the OCSP response is not a successful one", path);
	} else if ((single = find_single(basic, ctx)) == NULL) {
		err_set(err, "%s: the OCSP response is for another certificate", path);
	} else {
		rc = check_single(single, out, path, err);
	}
	OCSP_BASICRESP_free(basic);
	ERR_clear_error();
	return rc;
}

int
tls_ocsp_read(const char *path, SSL_CTX *ctx, struct tls_ocsp *out, struct err *err)
{
	struct tls_ocsp found = { NULL, 0, 0, 0 };
	OCSP_RESPONSE *response = NULL;
	BIO *bio;
	int rc;

	if (tlsfile_check_readable("OCSP response", path, err) == -1)
		return -1;
	if ((bio = BIO_new_file(path, "rb")) != NULL)
		response = d2i_OCSP_RESPONSE_bio(bio, NULL);
	BIO_free(bio);
	if (response == NULL)
		return tlsfile_fail(err, "an OCSP response in DER", path);
	rc = read_single(response, ctx, &found, path, err);
	if (rc == 0 && (found.len = i2d_OCSP_RESPONSE(response, &found.bytes)) <= 0)
		rc = tlsfile_fail(err, "an OCSP response in DER", path);
	OCSP_RESPONSE_free(response);
	if (rc == 0)
		*out = found;
	return rc;
}
