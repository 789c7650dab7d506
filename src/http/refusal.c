#include "keytrail/refusal.h"

#include <assert.h>
#include <stddef.h>

static const struct refusal_info infos[REFUSAL_COUNT] = {
#define X(name, status, label, text) [REFUSAL_##name] = { status, #name, label, text },
	REFUSAL_TABLE(X)
#undef X
};

static const struct refusal_info clients[REFUSAL_CLIENT_COUNT] = {
#define X(name, label, text) [REFUSAL_CLIENT_##name] = { 0, NULL, label, text },
	REFUSAL_CLIENTS(X)
#undef X
};

/* Ascending: searched by halves. */
static const struct {
	unsigned status;
	const char *phrase;
} phrases[] = {
	{ 100, "Continue" },
	{ 101, "Switching Protocols" },
	{ 102, "Processing" },
	{ 103, "Early Hints" },
	{ 200, "OK" },
	{ 201, "Created" },
	{ 202, "Accepted" },
	{ 203, "Non-Authoritative Information" },
	{ 204, "No Content" },
	{ 205, "Reset Content" },
	{ 206, "Partial Content" },
	{ 207, "Multi-Status" },
	{ 208, "Already Reported" },
	{ 226, "IM Used" },
	{ 300, "Multiple Choices" },
	{ 301, "Moved Permanently" },
	{ 302, "Found" },
	{ 303, "See Other" },
	{ 304, "Not Modified" },
	{ 305, "Use Proxy" },
	{ 307, "Temporary Redirect" },
	{ 308, "Permanent Redirect" },
	{ 400, "Bad Request" },
	{ 401, "Unauthorized" },
	{ 402, "Payment Required" },
	{ 403, "Forbidden" },
	{ 404, "Not Found" },
	{ 405, "Method Not Allowed" },
	{ 406, "Not Acceptable" },
	{ 407, "Proxy Authentication Required" },
	{ 408, "Request Timeout" },
	{ 409, "Conflict" },
	{ 410, "Gone" },
	{ 411, "Length Required" },
	{ 412, "Precondition Failed" },
	{ 413, "Content Too Large" },
	{ 414, "URI Too Long" },
	{ 415, "Unsupported Media Type" },
	{ 416, "Range Not Satisfiable" },
	{ 417, "Expectation Failed" },
	{ 421, "Misdirected Request" },
	{ 422, "Unprocessable Content" },
	{ 423, "Locked" },
	{ 424, "Failed Dependency" },
	{ 425, "Too Early" },
	{ 426, "Upgrade Required" },
	{ 428, "Precondition Required" },
	{ 429, "Too Many Requests" },
	{ 431, "Request Header Fields Too Large" },
	{ 451, "Unavailable For Legal Reasons" },
	{ 500, "Internal Server Error" },
	{ 501, "Not Implemented" },
	{ 502, "Bad Gateway" },
	{ 503, "Service Unavailable" },
	{ 504, "Gateway Timeout" },
	{ 505, "HTTP Version Not Supported" },
	{ 506, "Variant Also Negotiates" },
	{ 507, "Insufficient Storage" },
	{ 508, "Loop Detected" },
	{ 511, "Network Authentication Required" },
};

static const char *const classes[] = { "Status 1xx", "Status 2xx", "Status 3xx", "Status 4xx",
	"Status 5xx" };

const struct refusal_info *
refusal_info(enum http_refusal r)
{
	assert((unsigned)r < REFUSAL_COUNT);
	return &infos[r];
}

const struct refusal_info *
refusal_client_info(enum refusal_client r)
{
	assert(r < REFUSAL_CLIENT_COUNT);
	return &clients[r];
}

const char *
http_status_phrase(unsigned status)
{
	size_t low = 0, high = sizeof(phrases) / sizeof(phrases[0]);

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (phrases[mid].status == status)
			return phrases[mid].phrase;
		if (phrases[mid].status < status)
			low = mid + 1;
		else
			high = mid;
	}
	return status >= 100 && status < 600 ? classes[status / 100 - 1] : "Status unknown";
}
