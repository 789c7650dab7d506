#include "keytrail/chars.h"
#include "keytrail/head.h"

static const struct slice names[HTTP_F_COUNT] = {
#define X(suffix, name) [HTTP_F_##suffix] = SLICE_INIT(name),
	HTTP_FIELD_TABLE(X)
#undef X
};

/* Length and last letter tell all known names apart; where a new row does not, the compiler says
 * "duplicate case". */
#define KEY(length, last) ((length) << 8 | (unsigned char)(last))

static enum http_field_id
candidate(size_t length, char last)
{
	switch (KEY(length, chars_lower(last))) {
	case KEY(2, 'e'):
		return HTTP_F_TE;
	case KEY(3, 'a'):
		return HTTP_F_VIA;
	case KEY(4, 'e'):
		return HTTP_F_DATE;
	case KEY(4, 't'):
		return HTTP_F_HOST;
	case KEY(6, 't'):
		return HTTP_F_EXPECT;
	case KEY(6, 'r'):
		return HTTP_F_PREFER;
	case KEY(7, 'c'):
		return HTTP_F_ALT_SVC;
	case KEY(7, 'r'):
		return HTTP_F_TRAILER;
	case KEY(7, 'e'):
		return HTTP_F_UPGRADE;
	case KEY(8, 'n'):
		return HTTP_F_LOCATION;
	case KEY(9, 'd'):
		return HTTP_F_FORWARDED;
	case KEY(10, 'n'):
		return HTTP_F_CONNECTION;
	case KEY(10, 'e'):
		return HTTP_F_KEEP_ALIVE;
	case KEY(10, 't'):
		return HTTP_F_USER_AGENT;
	case KEY(12, 'e'):
		return HTTP_F_CONTENT_TYPE;
	case KEY(13, 'n'):
		return HTTP_F_AUTHORIZATION;
	case KEY(13, 'd'):
		return HTTP_F_X_HTTP_METHOD;
	case KEY(13, 'l'):
		return HTTP_F_X_REWRITE_URL;
	case KEY(14, 'h'):
		return HTTP_F_CONTENT_LENGTH;
	case KEY(14, 'd'):
		return HTTP_F_CORRELATION_ID;
	case KEY(14, 's'):
		return HTTP_F_HTTP2_SETTINGS;
	case KEY(14, 't'):
		return HTTP_F_X_HTTP_REQUEST;
	case KEY(14, 'g'):
		return HTTP_F_X_KMS_KEY_RING;
	case KEY(14, 'l'):
		return HTTP_F_X_ORIGINAL_URL;
	case KEY(15, 'r'):
		return HTTP_F_X_FORWARDED_FOR;
	case KEY(16, 'e'):
		return HTTP_F_BLUEMIX_INSTANCE;
	case KEY(16, 'g'):
		return HTTP_F_CONTENT_ENCODING;
	case KEY(16, 'n'):
		return HTTP_F_PROXY_CONNECTION;
	case KEY(16, 't'):
		return HTTP_F_X_FORWARDED_HOST;
	case KEY(17, 'g'):
		return HTTP_F_TRANSFER_ENCODING;
	case KEY(17, 'o'):
		return HTTP_F_X_FORWARDED_PROTO;
	case KEY(17, 'e'):
		return HTTP_F_X_METHOD_OVERRIDE;
	case KEY(18, 'e'):
		return HTTP_F_PROXY_AUTHENTICATE;
	case KEY(19, 'n'):
		return HTTP_F_PROXY_AUTHORIZATION;
	case KEY(22, 'e'):
		return HTTP_F_X_HTTP_METHOD_OVERRIDE;
	default:
		return HTTP_F_OTHER;
	}
}

enum http_field_id
http_field_id(struct slice name)
{
	enum http_field_id id;

	if (name.n == 0)
		return HTTP_F_OTHER;
	id = candidate(name.n, name.p[name.n - 1]);
	return id != HTTP_F_OTHER && slice_equal_nocase(name, names[id]) ? id : HTTP_F_OTHER;
}

struct http_field *
http_head_add(struct http_head *h, struct slice name)
{
	struct http_field *f = &h->fields[h->nfields++];
	uint64_t id;

	*f = (struct http_field){ name, SLICE_EMPTY, http_field_id(name), false };
	id = HTTP_F_SET(f->id);
	h->repeated |= h->present & id;
	h->present |= id;
	if (h->first[f->id] == 0)
		h->first[f->id] = (uint8_t)h->nfields;
	return f;
}

struct slice
http_head_host(const struct http_head *h)
{
	const struct http_field *host = http_head_field(h, HTTP_F_HOST);

	return host != NULL ? host->value : h->authority;
}

unsigned
http_head_count(const struct http_head *h, enum http_field_id id)
{
	unsigned count = 0;

	if (h->first[id] == 0)
		return 0;
	for (unsigned i = h->first[id] - 1u; i < h->nfields; i++)
		count += h->fields[i].id == id;
	return count;
}

unsigned
http_head_count_name(const struct http_head *h, struct slice name)
{
	unsigned count = 0;

	for (unsigned i = 0; i < h->nfields; i++)
		count += slice_equal_nocase(h->fields[i].name, name);
	return count;
}

const struct http_field *
http_head_find(const struct http_head *h, struct slice name)
{
	for (unsigned i = 0; i < h->nfields; i++)
		if (slice_equal_nocase(h->fields[i].name, name))
			return &h->fields[i];
	return NULL;
}
