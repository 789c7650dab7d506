/* ArcSight's Common Event Format, CEF:0, with the keys of its dictionary and lengths. */
#include "format_internal.h"

#include "keytrail/jsonscan.h"
#include "keytrail/trail.h"
#include "keytrail/utf8.h"

#include <string.h>

#define NAME_MAX_OUT 512
#define WORD_MAX     1023

/* ---- escaping ---- */

/* Where an escaped value is put, and which characters of it the place must not have bare. */
enum place { HEADER, EXTENSION };

static int
put_character(struct buf *out, const char *p, size_t n, enum place place)
{
	bool escaped = *p == '\\' || *p == (place == HEADER ? '|' : '=');

	if (place == EXTENSION && (*p == '\n' || *p == '\r'))
		return buf_append(out, *p == '\n' ? "\\n" : "\\r", 2);
	if ((unsigned char)*p < ' ' || *p == 0x7f)
		p = " ";
	if (escaped && buf_append(out, "\\", 1) == -1)
		return -1;
	return buf_append(out, p, n);
}

/* How many bytes may stand as they are. */
static size_t
plain_bytes(struct slice s, enum place place)
{
	char special = place == HEADER ? '|' : '=';
	size_t n = 0;

	while (n < s.n && s.p[n] >= ' ' && s.p[n] < 0x7f && s.p[n] != '\\' && s.p[n] != special)
		n++;
	return n;
}

/* A text of up to `max` bytes, cut at a character. */
static int
put_text(struct buf *out, struct slice s, size_t max, enum place place)
{
	size_t n;
	uint32_t cp;

	for (size_t i = 0; i < s.n; i += n) {
		n = plain_bytes(slice_sub(s, i, s.n < max ? s.n : max), place);
		if (buf_append(out, s.p + i, n) == -1)
			return -1;
		i += n;
		n = i < s.n ? utf8_decode(s.p + i, s.n - i, &cp) : 0;
		if (n == 0 || i + n > max)
			break;
		if (put_character(out, s.p + i, n, place) == -1)
			return -1;
	}
	return 0;
}

static int
put_value(struct buf *out, const struct value *v, size_t max, enum place place)
{
	char plain[TRAIL_LINE_MAX];
	struct slice text = v->raw;
	long n;

	if (v->string && memchr(text.p, '\\', text.n) != NULL) {
		if ((n = jsonscan_unescape(text, plain, sizeof(plain))) == -1)
			n = 0;
		text = (struct slice){ plain, (size_t)n };
	}
	return put_text(out, text, max, place);
}

/* ---- values ---- */

static void
make_address(const struct facts *f, struct made *out)
{
	struct slice address = f->of[FACT_ADDRESS].raw;

	if (address.n > 0 && memchr(address.p, ':', address.n) == NULL)
		out->value = f->of[FACT_ADDRESS];
}

static void
make_address6(const struct facts *f, struct made *out)
{
	struct slice address = f->of[FACT_ADDRESS].raw;

	if (address.n > 0 && memchr(address.p, ':', address.n) != NULL)
		out->value = f->of[FACT_ADDRESS];
}

static void
make_category(const struct facts *f, struct made *out)
{
	if (f->kind != FACTS_CALL)
		made_string(out, f->kind == FACTS_STUB ? SLICE("stub") : SLICE("own"));
	else
		made_string(out, fact_is(f, FACT_KIND, "intent") ? SLICE("intent") : SLICE("call"));
}

static void
make_ms(const struct facts *f, enum fact fact, struct made *out)
{
	if (fact_ms(f, fact) > 0)
		made_print(out, "%llu", (unsigned long long)fact_ms(f, fact));
}

static void
make_start(const struct facts *f, struct made *out)
{
	make_ms(f, FACT_TIME, out);
}

static void
make_receipt(const struct facts *f, struct made *out)
{
	make_ms(f, FACT_AT, out);
}

static const struct format_row rows[] = {
	{ "c6a2", .make = make_address6, .label = "Source IPv6 Address", .max = 45,
	    .help = "`initiator.host.address`, of IPv6" },
	{ "cat", .make = make_category, .max = WORD_MAX,
	    .help = "`call`, `intent`, `own` (of the sidecar), `stub`" },
	{ "cn1", .make = make_status, .label = "status", .max = 20, .help = MADE_STATUS },
	{ "cn2", .fact = FACT_PREV, .label = "prev", .max = 20 },
	{ "cs1", .fact = FACT_CORRELATION, .label = "correlationId", .max = 4000 },
	{ "cs2", .fact = FACT_BOOT, .label = "boot", .max = 4000 },
	{ "cs3", .fact = FACT_HASH, .label = "hash", .max = 4000 },
	{ "cs4", .fact = FACT_TARGET, .label = "target", .max = 4000 },
	{ "cs5", .fact = FACT_INSTANCE, .label = "instanceId", .max = 4000 },
	{ "cs6", .fact = FACT_DETAILS, .label = "details", .max = 4000 },
	{ "destinationServiceName", .make = make_service, .max = 255, .help = MADE_SERVICE },
	{ "deviceExternalId", .fact = FACT_LOG, .max = 255 },
	{ "externalId", .fact = FACT_SEQ, .max = 40 },
	{ "flexString1", .fact = FACT_PATH, .label = "path", .max = WORD_MAX },
	{ "flexString2", .fact = FACT_SHAPE, .label = "shape", .max = WORD_MAX },
	{ "outcome", .fact = FACT_OUTCOME, .max = 63 },
	{ "reason", .make = make_detail, .max = WORD_MAX, .help = MADE_DETAIL },
	{ "requestClientApplication", .fact = FACT_AGENT, .max = WORD_MAX },
	{ "requestMethod", .fact = FACT_METHOD, .max = WORD_MAX },
	{ "rt", .make = make_receipt, .max = 20, .help = "`trail.at`" },
	{ "src", .make = make_address, .max = 15, .help = "`initiator.host.address`, of IPv4" },
	{ "start", .make = make_start, .max = 20, .help = "`eventTime`" },
	{ "suid", .fact = FACT_INITIATOR, .max = WORD_MAX },
	{ "suser", .fact = FACT_INITIATOR_NAME, .max = WORD_MAX },
};

const struct format_table format_cef_table = {
	.about = "ArcSight's Common Event Format: `CEF:0|keytrail|keytrail|<version>|<action>|"
		 "<message>|<severity>|`, with 3 for normal, 6 for warning, 9 for critical, and "
		 "these keys. It has a place for less than there is.",
	.rows = rows,
	.n = sizeof(rows) / sizeof(rows[0]),
};

/* ---- the event ---- */

static const char *
severity(const struct facts *f)
{
	return fact_is(f, FACT_SEVERITY, "normal")     ? "3"
	       : fact_is(f, FACT_SEVERITY, "warning")  ? "6"
	       : fact_is(f, FACT_SEVERITY, "critical") ? "9"
						       : "Unknown";
}

static int
put_header(const struct facts *f, struct buf *out)
{
	struct value message = f->of[FACT_MESSAGE], action = f->of[FACT_ACTION];

	if (!action.there)
		action.raw = SLICE("keytrail.unknown");
	if (!message.there)
		message.raw = SLICE("rejected event");
	if (buf_printf(out, "CEF:0|keytrail|keytrail|%s|", KEYTRAIL_VERSION) == -1 ||
	    put_value(out, &action, WORD_MAX, HEADER) == -1 || buf_append(out, "|", 1) == -1 ||
	    put_value(out, &message, NAME_MAX_OUT, HEADER) == -1)
		return -1;
	return buf_printf(out, "|%s|", severity(f));
}

static int
put(struct buf *out, const char *s)
{
	return buf_append(out, s, strlen(s));
}

static int
put_key(struct buf *out, const struct format_row *row)
{
	if (row->label != NULL && (put(out, row->path) == -1 || put(out, "Label=") == -1 ||
				      put(out, row->label) == -1 || put(out, " ") == -1))
		return -1;
	return put(out, row->path) == -1 || put(out, "=") == -1 ? -1 : 0;
}

int
format_cef(const struct facts *f, struct buf *out)
{
	const char *between = "";
	struct made made;

	if (put_header(f, out) == -1)
		return -1;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct value v = row_value(&rows[i], f, &made);

		if (!v.there)
			continue;
		if (put(out, between) == -1 || put_key(out, &rows[i]) == -1 ||
		    put_value(out, &v, rows[i].max, EXTENSION) == -1)
			return -1;
		between = " ";
	}
	return 0;
}
