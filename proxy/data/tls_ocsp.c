#include "tls_internal.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>

#include <stdlib.h>

/* What the response says of the certificate, or NULL. */
static OCSP_SINGLERESP *
find_single(OCSP_BASICRESP *basic, X509 *certificate)
{
	for (int i = 0; i < OCSP_resp_count(basic); i++) {
		OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
		/* OpenSSL's getter is not const, though it changes nothing. */
		OCSP_CERTID *id = (OCSP_CERTID *)(uintptr_t)OCSP_SINGLERESP_get0_id(single);
		ASN1_INTEGER *serial;

		if (OCSP_id_get0_info(NULL, NULL, NULL, &serial, id) == 1 &&
		    ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(certificate)) == 0)
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
	out->from = tls_seconds_of(from);
	out->until = tls_seconds_of(until);
	return 0;
}

static int
read_single(OCSP_RESPONSE *response, X509 *certificate, struct tls_ocsp *out, const char *path,
    struct err *err)
{
	OCSP_BASICRESP *basic = NULL;
	OCSP_SINGLERESP *single;
	int rc = -1;

	if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL ||
	    (basic = OCSP_response_get1_basic(response)) == NULL) {
		err_set(err, "%s: the OCSP response is not a successful one", path);
	} else if ((single = find_single(basic, certificate)) == NULL) {
		err_set(err, "%s: the OCSP response is for another certificate", path);
	} else {
		rc = check_single(single, out, path, err);
	}
	OCSP_BASICRESP_free(basic);
	ERR_clear_error();
	return rc;
}

int
tls_ocsp_read(const char *path, X509 *certificate, struct tls_ocsp *out, struct err *err)
{
	struct tls_ocsp found = { NULL, 0, 0, 0 };
	OCSP_RESPONSE *response = NULL;
	BIO *bio;
	int rc;

	if (tls_check_readable("OCSP response", path, err) == -1)
		return -1;
	if ((bio = BIO_new_file(path, "rb")) != NULL)
		response = d2i_OCSP_RESPONSE_bio(bio, NULL);
	BIO_free(bio);
	if (response == NULL)
		return tls_fail(err, "an OCSP response in DER", path);
	rc = read_single(response, certificate, &found, path, err);
	if (rc == 0 && (found.len = i2d_OCSP_RESPONSE(response, &found.bytes)) <= 0)
		rc = tls_fail(err, "an OCSP response in DER", path);
	OCSP_RESPONSE_free(response);
	if (rc == 0)
		*out = found;
	return rc;
}
