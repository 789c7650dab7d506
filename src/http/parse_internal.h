/*
 * parse_internal: what the files of parse share.
 */
#ifndef KEYTRAIL_PARSE_INTERNAL_H
#define KEYTRAIL_PARSE_INTERNAL_H

#include "keytrail/parse.h"

/* What concerns the whole of a message that is well-formed line by line: fills what the scan left
 * open in *h, or says why it is refused. */
enum http_refusal parse_check_request(struct http_head *h);
enum http_refusal parse_check_response(struct http_head *h, bool to_head);

/* The known field that `name` is, or could be taken for under CGI's rules. */
enum http_field_id parse_alias_of(struct slice name);

/* Is it `plain` (in small letters), or could it be taken for it under CGI's rules? */
bool parse_is_taken_for(struct slice name, struct slice plain);

/* "X-Forwarded-..." of any kind. */
bool parse_is_forwarded(struct slice name);

/* Take the next element out of a comma-separated list; empty ones are passed over. */
bool parse_next_element(struct slice *rest, struct slice *element);

/* The next field of Connection, from the *i-th field on; NULL: no more. */
const struct http_field *parse_next_connection(const struct http_head *h, unsigned *i);

/* Does llhttp find in these bytes exactly what is in *h? */
bool parse_second_opinion(const struct http_head *h, struct slice bytes, bool response);

#endif
