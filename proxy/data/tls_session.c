#include "tls_internal.h"

#include "data/stream.h"
#include "data/tickets.h"
#include "keytrail/clock.h"

#include <string.h>
#include <time.h>

/* Whose session is resumed is not verified again: it ends with what its peer was verified by, and at
 * an age, which OpenSSL would count from its newest ticket. */
struct verified {
	int64_t since; /* monotonic s */
	int64_t until; /* wall clock s */
};

int64_t
tls_monotonic_s(void)
{
	return clock_mono_ns() / CLOCK_NS_PER_S;
}

/* The lists of who issued this certificate. */
static int64_t
lists_end(X509_STORE *store, const X509 *cert)
{
	STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(store);
	int64_t until = INT64_MAX, u;

	for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
		const X509_CRL *list = X509_OBJECT_get0_X509_CRL(sk_X509_OBJECT_value(objects, i));

		if (list != NULL &&
		    X509_NAME_cmp(X509_CRL_get_issuer(list), X509_get_issuer_name(cert)) == 0 &&
		    (u = tlsfile_seconds_of(X509_CRL_get0_nextUpdate(list))) < until)
			until = u;
	}
	return until;
}

/* What the peer was verified by; a client that has no certificate, by nothing. */
static int64_t
chain_ends(SSL *ssl)
{
	X509_STORE *store = SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl));
	STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
	int64_t until = INT64_MAX, u;

	if (chain == NULL && SSL_get0_peer_certificate(ssl) != NULL)
		return 0;
	/* The system's store grows by what other threads look for. */
	X509_STORE_lock(store);
	for (int i = 0; i < sk_X509_num(chain); i++) {
		const X509 *cert = sk_X509_value(chain, i);

		if ((u = tlsfile_seconds_of(X509_get0_notAfter(cert))) < until)
			until = u;
		if ((u = lists_end(store, cert)) < until)
			until = u;
	}
	X509_STORE_unlock(store);
	return until;
}

void
tls_session_bind(SSL *ssl, SSL_SESSION *session)
{
	struct verified v = { .since = tls_monotonic_s() };
	void *before;
	size_t n;

	if (SSL_SESSION_get0_ticket_appdata(session, &before, &n) == 1 && n > 0)
		return;
	v.until = chain_ends(ssl);
	/* Without memory the session is one that is not resumed. */
	SSL_SESSION_set1_ticket_appdata(session, &v, sizeof(v));
}

bool
tls_session_is_valid(SSL_SESSION *session)
{
	struct verified v;
	void *data;
	size_t n;

	if (SSL_SESSION_get0_ticket_appdata(session, &data, &n) != 1 || n != sizeof(v))
		return false;
	memcpy(&v, data, sizeof(v));
	return tls_monotonic_s() - v.since < TICKETS_CHAIN_S && time(NULL) <= v.until;
}

void
tls_session_check(struct stream_session *slot)
{
	if (slot->session == NULL || tls_session_is_valid(slot->session))
		return;
	SSL_SESSION_free(slot->session);
	slot->session = NULL;
}
