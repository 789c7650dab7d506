/*
 * service: the HTTP side of the stand-in key service, on evhttp.
 *
 * A request needs `Authorization: Bearer <token>` (401 else) and `Bluemix-Instance: <UUID>` (400
 * else); the answer carries the request's Correlation-Id, or a new one where it is not a UUID.
 * Lists are answered chunked, everything else with a length.
 *
 * Headers that only the stand-in understands, to provoke things:
 *
 *   X-Test-Delay: <ms>          wait before answering
 *   X-Test-Status: <n>          answer with this status and an error
 *   X-Test-Size: <bytes>        answer 200 with so many bytes
 *   X-Test-Chunked: 1           chunked, whatever the answer
 *   X-Test-Correlation: <text>  this Correlation-Id in the answer; "none" for none
 *   X-Test-Header: <Name: text> one more field in the answer
 *   X-Test-Close: 1             close without a byte
 *   X-Test-Raw: <base64>        write these bytes as they are, then close
 *
 * The log has one JSON object a request, written before the answer: connection, method, target,
 * correlation, names (of all fields, in order), fields (values of those that matter to a proxy),
 * bodyLength, bodySha256, status.
 */
#ifndef KMS_SERVICE_H
#define KMS_SERVICE_H

#include "keys.h"
#include "token.h"

#include <stdio.h>

struct evhttp;
struct event_base;

struct service {
	struct event_base *base;
	struct keystore *store;
	struct token_secret secret;
	FILE *log; /* or NULL */
};

/* The service must outlive the server. */
void service_attach(struct service *s, struct evhttp *http);

#endif
