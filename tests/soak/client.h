/*
 * client: one blocking HTTPS connection of the load generator, and a strict reader of answers.
 *
 * One thread each.  A call that fails says why in `why` and leaves the connection closed.
 */
#ifndef SOAK_CLIENT_H
#define SOAK_CLIENT_H

#include <openssl/ssl.h>

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#define CLIENT_BUFFER 65536
#define CLIENT_BODY   8192 /* bytes of an answer's body that are kept */

struct client {
	SSL_CTX *ctx; /* borrowed */
	struct sockaddr_in address;
	SSL *ssl; /* NULL: not connected */
	SSL_SESSION *session;
	int fd;
	uint64_t handshakes, resumed;
	char why[200];
	size_t off, len;
	char buffer[CLIENT_BUFFER];
};

struct answer {
	unsigned status;
	char correlation[65]; /* "" when there is none */
	bool close;
	uint64_t body_len; /* the whole body's; the first CLIENT_BODY bytes are kept, and a NUL */
	char body[CLIENT_BODY + 1];
};

SSL_CTX *client_context(const char *ca_file);

void client_init(struct client *c, SSL_CTX *ctx, const struct sockaddr_in *address);
void client_fini(struct client *c);

int client_connect(struct client *c);
/* Keep the session for the next connection.  Without `politely` the peer sees a reset. */
void client_close(struct client *c, bool politely);

int client_send(struct client *c, const char *p, size_t n);
/* A head alone answers when its status is 1xx: call again for the final answer. */
int client_receive(struct client *c, bool to_head, struct answer *out);

#endif
