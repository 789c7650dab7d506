/*
 * answer: a whole answer of the admin listeners.
 *
 * Each says that it is not to be stored nor its type to be guessed.  What else is in its head is added
 * to the request's output headers before.  HEAD gets no body.  Thread of the base.
 */
#ifndef KEYTRAIL_PROXY_ANSWER_H
#define KEYTRAIL_PROXY_ANSWER_H

#include "keytrail/buf.h"

#define ANSWER_TEXT "text/plain; charset=utf-8"
#define ANSWER_JSON "application/json"

struct evhttp_request;

/* As a JSON string. */
int answer_put_string(struct slice s, struct buf *out);

/* The head of one that comes in pieces. */
void answer_set_headers(struct evhttp_request *req, const char *type);

void answer_send(struct evhttp_request *req, int status, const char *type, struct slice body);
void answer_text(struct evhttp_request *req, int status, const char *text);
/* The body is freed; rc -1: it could not be made, memory is short. */
void answer_take(
    struct evhttp_request *req, int status, const char *type, struct buf *body, int rc);

#endif
