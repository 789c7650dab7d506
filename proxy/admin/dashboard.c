#include "admin/dashboard.h"

#include "admin/answer.h"

#include <event2/http.h>
#include <string.h>

static const struct {
	const char *suffix, *type;
} types[] = {
	{ ".html", "text/html; charset=utf-8" },
	{ ".css", "text/css; charset=utf-8" },
	{ ".js", "text/javascript; charset=utf-8" },
	{ ".svg", "image/svg+xml" },
};

static const struct {
	const char *name, *value;
} headers[] = {
	{ "Content-Security-Policy",
	    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
	    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
	    "require-trusted-types-for 'script'; trusted-types 'none'" },
	{ "Cross-Origin-Opener-Policy", "same-origin" },
	{ "Cross-Origin-Resource-Policy", "same-origin" },
	{ "Referrer-Policy", "no-referrer" },
};

static const char *
type_of(const char *path)
{
	const char *suffix = strrchr(path, '.');

	for (size_t i = 0; suffix != NULL && i < sizeof(types) / sizeof(types[0]); i++)
		if (strcmp(suffix, types[i].suffix) == 0)
			return types[i].type;
	return "application/octet-stream";
}

const struct dashboard_file *
dashboard_find(const char *path)
{
	const char *wanted = strcmp(path, "/") == 0 ? "/index.html" : path;

	for (const struct dashboard_file *f = dashboard_files; f->path != NULL; f++)
		if (strcmp(f->path, wanted) == 0)
			return f;
	return NULL;
}

void
dashboard_answer(struct evhttp_request *req, const struct dashboard_file *file)
{
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
		evhttp_add_header(
		    evhttp_request_get_output_headers(req), headers[i].name, headers[i].value);
	answer_send(
	    req, 200, type_of(file->path), (struct slice){ (const char *)file->bytes, file->n });
}
