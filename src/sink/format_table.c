#include "format_internal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- values ---- */

void
made_raw(struct made *out, struct slice raw)
{
	out->value = (struct value){ true, false, raw };
}

void
made_string(struct made *out, struct slice raw)
{
	out->value = (struct value){ raw.n > 0, true, raw };
}

static __attribute__((format(printf, 2, 0))) void
print(struct made *out, const char *fmt, va_list ap)
{
	int n = vsnprintf(out->text, sizeof(out->text), fmt, ap);

	assert(n >= 0 && (size_t)n < sizeof(out->text));
	out->value = (struct value){ true, false, { out->text, (size_t)n } };
}

void
made_print(struct made *out, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print(out, fmt, ap);
	va_end(ap);
}

void
made_print_string(struct made *out, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print(out, fmt, ap);
	va_end(ap);
	out->value.string = true;
}

struct value
row_value(const struct format_row *row, const struct facts *f, struct made *made)
{
	if (row->always != NULL)
		return (struct value){ true, false, slice_of(row->always) };
	if (row->make == NULL)
		return f->of[row->fact];
	made->value.there = false;
	row->make(f, made);
	return made->value;
}

/* ---- objects ---- */

static int
put(struct buf *out, const char *s)
{
	return buf_append(out, s, strlen(s));
}

/* The length of the objects that both paths lie in, with the last dot. */
static size_t
common_objects(const char *a, const char *b)
{
	size_t n = 0;

	for (size_t i = 0; a[i] != '\0' && a[i] == b[i]; i++)
		if (a[i] == '.')
			n = i + 1;
	return n;
}

/* The braces of the objects that `path` lies in, from the innermost, but the first `n` bytes. */
static int
close_objects(struct buf *out, const char *path, size_t n)
{
	for (size_t i = strlen(path); i > n; i--)
		if (path[i - 1] == '.' && put(out, i > 2 && path[i - 2] == ']' ? "}]" : "}") == -1)
			return -1;
	return 0;
}

/* The rest of a path: each name with what opens its object. */
static int
open_objects(struct buf *out, const char *rest)
{
	const char *opening;
	size_t n, name;

	do {
		n = strcspn(rest, ".");
		name = rest[n - 1] == ']' ? n - 2 : n;
		opening = rest[n] == '\0' ? "\":" : name < n ? "\":[{" : "\":{";
		if (buf_append(out, "\"", 1) == -1 || buf_append(out, rest, name) == -1 ||
		    put(out, opening) == -1)
			return -1;
		rest += n + 1;
	} while (rest[-1] != '\0');
	return 0;
}

static int
put_value(struct buf *out, const struct value *v)
{
	if (!v->string)
		return buf_append_slice(out, v->raw);
	if (buf_append(out, "\"", 1) == -1 || buf_append_slice(out, v->raw) == -1)
		return -1;
	return buf_append(out, "\"", 1);
}

int
format_object(const struct format_table *table, const struct facts *f, struct buf *out,
    struct format_mark *mark)
{
	const char *before = NULL;
	struct made made;

	if (put(out, "{") == -1)
		return -1;
	for (size_t i = 0; i < table->n; i++) {
		const struct format_row *row = &table->rows[i];
		struct value v = row_value(row, f, &made);
		size_t same = 0;

		if (!v.there)
			continue;
		if (before != NULL) {
			same = common_objects(before, row->path);
			if (close_objects(out, before, same) == -1 || put(out, ",") == -1)
				return -1;
		}
		if (open_objects(out, row->path + same) == -1 || put_value(out, &v) == -1)
			return -1;
		if (mark != NULL && row->path == mark->path)
			mark->at = buf_size(out);
		before = row->path;
	}
	if (before != NULL && close_objects(out, before, 0) == -1)
		return -1;
	return put(out, "}");
}

/* ---- what several tables have ---- */

void
make_event_uid(const struct facts *f, struct made *out)
{
	made_print_string(out, "%.*s/%.*s/%.*s", SLICE_ARG(f->of[FACT_LOG].raw),
	    SLICE_ARG(f->of[FACT_BOOT].raw), SLICE_ARG(f->of[FACT_SEQ].raw));
}

/* "2026-11-22T20:09:08.12+0000" ends in Z where an offset without a colon is none. */
void
make_iso_time(const struct facts *f, struct made *out)
{
	if (fact_ms(f, FACT_TIME) > 0)
		made_print_string(out, "%.22sZ", f->of[FACT_TIME].raw.p);
}

void
make_service(const struct facts *f, struct made *out)
{
	made_string(out, fact_service(f));
}

void
make_status(const struct facts *f, struct made *out)
{
	if (fact_status(f) > 0)
		made_print(out, "%u", fact_status(f));
}

void
make_detail(const struct facts *f, struct made *out)
{
	out->value = f->of[f->of[FACT_CAUSE].there ? FACT_CAUSE : FACT_REASON];
}
