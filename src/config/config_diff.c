#include "config_table.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- one value as text ---- */

static uint64_t
number_at(const char *at, size_t size)
{
	uint64_t wide;
	uint32_t narrow;

	if (size == 1)
		return *(const unsigned char *)at;
	if (size == 4) {
		memcpy(&narrow, at, 4);
		return narrow;
	}
	memcpy(&wide, at, 8);
	return wide;
}

static int
sha256(const void *p, size_t n, unsigned char out[32])
{
	return EVP_Digest(p, n, out, NULL, EVP_sha256(), NULL) == 1 ? 0 : -1;
}

/* Lengths first, so that no text can pretend to be another. */
static int
dump_text(const char *s, struct buf *out)
{
	return s == NULL ? buf_printf(out, "null") : buf_printf(out, "%zu %s", strlen(s), s);
}

static int
dump_secret(const struct config_secret *s, struct buf *out)
{
	unsigned char sum[32];

	if (s->bytes == NULL)
		return buf_printf(out, "null");
	if (sha256(s->bytes, s->n, sum) == -1 || dump_text(s->path, out) == -1)
		return -1;
	for (int i = 0; i < 8; i++)
		if (buf_printf(out, "%02x", sum[i]) == -1)
			return -1;
	return 0;
}

static int
dump_address(const struct config_address *a, struct buf *out)
{
	return dump_text(a->host, out) == -1 ? -1 : buf_printf(out, " %u", a->port);
}

static int
dump_network(const struct config_network *net, struct buf *out)
{
	for (size_t i = 0; i < sizeof(net->address); i++)
		if (buf_printf(out, "%02x", net->address[i]) == -1)
			return -1;
	return buf_printf(out, "/%u", net->bits);
}

static int dump_member(const struct member *m, const char *base, struct buf *out);

static int
dump_object(const struct member_table *t, const char *base, struct buf *out)
{
	for (size_t i = 0; i < t->n; i++)
		if (dump_member(&t->members[i], base, out) == -1)
			return -1;
	return 0;
}

static int
dump_element(const struct member *m, const char *elements, size_t i, struct buf *out)
{
	char *s;

	switch (m->type) {
	case MEMBER_ADDRESSES:
		return dump_address((const struct config_address *)(const void *)elements + i, out);
	case MEMBER_NETWORKS:
		return dump_network((const struct config_network *)(const void *)elements + i, out);
	case MEMBER_STRINGS:
		memcpy(&s, elements + i * sizeof(s), sizeof(s));
		return dump_text(s, out);
	default:
		return dump_object(m->element, elements + i * m->element->size, out);
	}
}

static int
dump_array(const struct member *m, const char *base, struct buf *out)
{
	const char *elements;
	size_t n;

	memcpy(&elements, base + m->field, sizeof(elements));
	memcpy(&n, base + m->second, sizeof(n));
	for (size_t i = 0; i < n; i++)
		if (buf_printf(out, "[%zu]", i) == -1 || dump_element(m, elements, i, out) == -1)
			return -1;
	return 0;
}

static int
dump_string_at(const char *base, size_t field, struct buf *out)
{
	char *s;

	memcpy(&s, base + field, sizeof(s));
	return dump_text(s, out);
}

static int
dump_value(const struct member *m, const char *base, struct buf *out)
{
	const void *at = base + m->field;

	switch (m->type) {
	case MEMBER_STRING:
	case MEMBER_PATH:
		return dump_string_at(base, m->field, out);
	case MEMBER_ADDRESS:
		return dump_address(at, out);
	case MEMBER_ADDRESSES:
	case MEMBER_NETWORKS:
	case MEMBER_STRINGS:
	case MEMBER_LIST:
		return dump_array(m, base, out);
	case MEMBER_SECRET:
		return dump_secret(at, out);
	default:
		return buf_printf(out, "%" PRIu64, number_at(at, m->size));
	}
}

/* "name: value" and a newline, the name dotted, a secret by its digest. */
static int
dump_member(const struct member *m, const char *base, struct buf *out)
{
	if (m->size == 0 || m->flags & MEMBER_LATER)
		return 0;
	if (buf_printf(out, "%s: ", m->name) == -1 || dump_value(m, base, out) == -1)
		return -1;
	return buf_append(out, "\n", 1);
}

/* ---- routes ---- */

static int
dump_routes(const struct config *c, struct buf *out)
{
	struct err line;

	if (dump_text(c->correlation_header, out) == -1 ||
	    buf_printf(out, " %d\n", (int)c->correlation_grammar) == -1)
		return -1;
	for (size_t i = 0; i < route_table_size(c->routes); i++) {
		const struct route *r = route_table_get(c->routes, i);

		route_describe(r, line.msg, sizeof(line.msg));
		if (dump_text(line.msg, out) == -1 ||
		    buf_printf(out, " %s %s %d %d %d %d %d %d\n", r->action, r->action_2019,
			(int)r->severity, (int)r->guarantee, r->data_event, r->login, r->retry,
			r->fallback) == -1)
			return -1;
	}
	return 0;
}

int
config_digest(const struct config *c, char out[65], struct err *err)
{
	struct buf all = BUF_INIT;
	unsigned char sum[32];
	int rc = -1;

	if (dump_object(&config_file_table, (const char *)c, &all) == 0 &&
	    dump_routes(c, &all) == 0 && sha256(buf_slice(&all).p, buf_size(&all), sum) == 0)
		rc = 0;
	buf_fini(&all);
	if (rc == -1)
		return err_set(err, "%s: the digest: memory is short", c->path);
	for (int i = 0; i < 32; i++)
		snprintf(out + 2 * i, 3, "%02x", sum[i]);
	return 0;
}

/* ---- comparison ---- */

static bool
same(struct buf *a, struct buf *b)
{
	if (buf_size(a) == 0 || buf_size(b) == 0)
		return buf_size(a) == buf_size(b);
	return slice_equal(buf_slice(a), buf_slice(b));
}

/* When memory is short two values count as different: then too much is reported, not too little. */
static bool
member_differs(const struct member *m, const void *a, const void *b)
{
	struct buf da = BUF_INIT, db = BUF_INIT;
	bool differs =
	    dump_member(m, a, &da) == -1 || dump_member(m, b, &db) == -1 || !same(&da, &db);

	buf_fini(&da);
	buf_fini(&db);
	return differs;
}

static bool
routes_differ(const struct config *a, const struct config *b)
{
	struct buf da = BUF_INIT, db = BUF_INIT;
	bool differs = dump_routes(a, &da) == -1 || dump_routes(b, &db) == -1 || !same(&da, &db);

	buf_fini(&da);
	buf_fini(&db);
	return differs;
}

static void
add_name(char *out, size_t n, const char *name, size_t len)
{
	size_t at = strlen(out);

	snprintf(out + at, n - at, "%s%.*s", at == 0 ? "" : ", ", (int)len, name);
}

bool
config_same_place(const struct config_sink *a, const struct config_sink *b)
{
	for (size_t i = 0; i < config_sink_table.n; i++) {
		const struct member *m = &config_sink_table.members[i];

		if (!(m->flags & MEMBER_OUTSIDE) && member_differs(m, a, b))
			return false;
	}
	return true;
}

bool
config_needs_restart(const struct config *running, const struct config *next, char *out, size_t n)
{
	out[0] = '\0';
	for (size_t i = 0; i < config_file_table.n; i++) {
		const struct member *m = &config_file_table.members[i];

		if (m->flags & MEMBER_RESTART && member_differs(m, running, next))
			add_name(out, n, m->name, strlen(m->name));
	}
	return out[0] != '\0';
}

bool
config_same_addresses(const struct config_upstream *a, const struct config_upstream *b)
{
	if (a->naddresses != b->naddresses)
		return false;
	for (size_t i = 0; i < a->naddresses; i++)
		if (a->addresses[i].port != b->addresses[i].port ||
		    strcmp(a->addresses[i].host, b->addresses[i].host) != 0)
			return false;
	return true;
}

bool
config_same_service(const struct config_upstream *a, const struct config_upstream *b)
{
	return a == b || (a->pass_host == b->pass_host && strcmp(a->host, b->host) == 0 &&
			     config_same_addresses(a, b));
}

void
config_changes(const struct config *running, const struct config *next, char *out, size_t n)
{
	const char *last = "";
	size_t last_len = 0;

	out[0] = '\0';
	for (size_t i = 0; i < config_file_table.n; i++) {
		const struct member *m = &config_file_table.members[i];
		size_t len = strcspn(m->name, ".");

		if ((len == last_len && strncmp(last, m->name, len) == 0) ||
		    !member_differs(m, running, next))
			continue;
		last = m->name;
		last_len = len;
		add_name(out, n, m->name, len);
	}
	if (routes_differ(running, next))
		add_name(out, n, "routes", strlen("routes"));
}
