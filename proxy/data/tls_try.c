/* A handshake with ourselves, in memory, before anybody else has one. */
#include "tls_internal.h"

#define STEPS 8 /* of either side; more than any handshake takes */

static bool
shake_hands(SSL *client, SSL *server)
{
	BIO *to_server, *to_client;

	if (BIO_new_bio_pair(&to_server, 0, &to_client, 0) != 1)
		return false;
	SSL_set_bio(client, to_server, to_server);
	SSL_set_bio(server, to_client, to_client);
	SSL_set_connect_state(client);
	SSL_set_accept_state(server);
	SSL_set_verify(server, SSL_VERIFY_NONE, NULL);
	for (int i = 0; i < STEPS; i++) {
		SSL_do_handshake(client);
		SSL_do_handshake(server);
	}
	return SSL_is_init_finished(client) && SSL_is_init_finished(server);
}

bool
tls_shakes_hands(SSL_CTX *server)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *c = ctx != NULL ? SSL_new(ctx) : NULL, *s = SSL_new(server);
	bool ok = c != NULL && s != NULL && shake_hands(c, s);

	SSL_free(c);
	SSL_free(s);
	SSL_CTX_free(ctx);
	return ok;
}
