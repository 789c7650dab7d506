/*
 * sink_http_exchange: one request at a time and its answer, over libcurl.
 *
 * A request may outlive the patience of a call: exchange_wait goes on with it.  One thread.
 */
#ifndef KEYTRAIL_SINK_HTTP_EXCHANGE_H
#define KEYTRAIL_SINK_HTTP_EXCHANGE_H

#include "keytrail/config.h"
#include "keytrail/err.h"
#include "keytrail/http_preset.h"

struct exchange;

/* What is the same for all requests: TLS, proxy, limits.  `url` says whether there is TLS, and names the
 * server in errors.  Nothing of cfg and tls is kept. */
int exchange_new(const struct config_sink *cfg, const struct config_tls *tls, const char *url,
    struct exchange **out, struct err *err);
void exchange_free(struct exchange *x); /* NULL is allowed; a running request is given up */

/* Add a header to the next request; the value is wiped when that is over. */
int exchange_header(struct exchange *x, const char *name, struct slice value, struct err *err);

/* POST to url + path; body must stay until the request is over. */
int exchange_begin(struct exchange *x, const char *path, struct slice body, struct err *err);
/* HEAD of the url: is anybody there? */
int exchange_look(struct exchange *x, struct err *err);
bool exchange_running(const struct exchange *x);
void exchange_give_up(struct exchange *x);

/* 1: answered; 0: not yet, at the deadline; -1: it failed, and is over. */
int exchange_wait(struct exchange *x, int64_t deadline_ns, struct err *err);

/* After 1, until the next request begins. */
struct http_reply exchange_reply(const struct exchange *x);
int64_t exchange_retry_after_ns(const struct exchange *x); /* 0: the server did not say */

#endif
