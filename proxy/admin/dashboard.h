/*
 * dashboard: the page of the admin listener, whose files (page/) are part of the program.
 *
 * It is let in without a token and holds no secret: its script asks for the token, and for what it shows as
 * any client does.  The headers keep it from running what is not its own, from asking others, and
 * from standing in somebody's frame.
 */
#ifndef KEYTRAIL_PROXY_DASHBOARD_H
#define KEYTRAIL_PROXY_DASHBOARD_H

#include <stdbool.h>
#include <stddef.h>

struct evhttp_request;

struct dashboard_file {
	const char *path; /* "/app.js" */
	const unsigned char *bytes;
	size_t n;
};

/* Made from page/ when it is built; a path of NULL ends it. */
extern const struct dashboard_file dashboard_files[];

/* The file of this path, or NULL; "/" is "/index.html". */
const struct dashboard_file *dashboard_find(const char *path);

void dashboard_answer(struct evhttp_request *req, const struct dashboard_file *file);

#endif
