/* The two text formats: Prometheus 0.0.4 and OpenMetrics 1.0. */

#include "metrics_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Read in this order, then the rest: an event that was counted as delivered is durable, one that is
 * durable is recorded, and so on. */
static const enum metric_id read_first[] = {
	METRIC_SINK_DELIVERED,
	METRIC_SINK_REJECTED,
	METRIC_SINK_FILTERED,
	METRIC_SINK_MISSING,
	METRIC_EVENTS_LOST,
	METRIC_EVENTS_DURABLE,
	METRIC_EVENTS_RECORDED,
	METRIC_EVENTS_ACCEPTED,
};
#define NREAD_FIRST (sizeof(read_first) / sizeof(read_first[0]))

union value {
	uint64_t integer;
	double real;
};

struct page {
	const struct metrics *m;
	enum metrics_format format;
	struct buf *out;
	union value *values; /* by cell */
	bool failed;
};

/* ---- the snapshot ---- */

static bool
is_real(const struct metric_row *row, unsigned index)
{
	return row->type == METRIC_GAUGE ||
	       (row->type == METRIC_HISTOGRAM && index % (row->nbounds + 2) == row->nbounds + 1);
}

/* Cells of actions that nobody registered are not worth a look; "other" is the last one. */
static bool
is_used(const struct metrics *m, enum metric_id id, unsigned index)
{
	unsigned action = index / (OUTCOMES * CLASSES);

	return id != METRIC_REQUESTS || action < m->nactions || action == METRICS_ACTIONS_MAX;
}

static void
read_metric(struct page *page, enum metric_id id)
{
	const struct metric_row *row = &metric_rows[id];

	for (unsigned i = 0; i < metrics_slots(row); i++) {
		unsigned cell = page->m->layout[id] + i;

		if (!is_used(page->m, id, i))
			page->values[cell].integer = 0;
		else if (is_real(row, i))
			page->values[cell].real = metrics_sum_double(page->m, cell);
		else
			page->values[cell].integer = metrics_sum_integer(page->m, cell);
	}
}

static void
read_all(struct page *page)
{
	bool done[METRIC_COUNT] = { false };

	for (size_t i = 0; i < NREAD_FIRST; i++) {
		read_metric(page, read_first[i]);
		done[read_first[i]] = true;
	}
	for (unsigned id = 0; id < METRIC_COUNT; id++)
		if (!done[id])
			read_metric(page, id);
}

/* ---- words ---- */

static void
put(struct page *page, const char *text)
{
	if (buf_append_slice(page->out, slice_of(text)) == -1)
		page->failed = true;
}

static void
put_real(struct page *page, double v)
{
	char text[32];

	snprintf(text, sizeof(text), "%.15g", v);
	if (strtod(text, NULL) < v || strtod(text, NULL) > v)
		snprintf(text, sizeof(text), "%.17g", v);
	put(page, text);
}

static void
put_integer(struct page *page, uint64_t v)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
	put(page, text);
}

static void
put_label(struct page *page, char before, const char *name, const char *value)
{
	char head[2] = { before, '\0' };

	put(page, head);
	put(page, name);
	put(page, "=\"");
	for (; *value != '\0'; value++) {
		char c[3] = { *value, '\0', '\0' };

		if (*value == '\\' || *value == '"' || *value == '\n') {
			c[0] = '\\';
			c[1] = *value == '\n' ? 'n' : *value;
		}
		put(page, c);
	}
	put(page, "\"");
}

static bool
openmetrics(const struct page *page)
{
	return page->format == METRICS_OPENMETRICS_1_0_0;
}

static const char *
sample_suffix(const struct metric_row *row)
{
	return row->type == METRIC_COUNTER ? "_total" : row->type == METRIC_INFO ? "_info" : "";
}

/* The family's name: OpenMetrics leaves the suffix of its samples out. */
static void
put_family(struct page *page, const struct metric_row *row)
{
	put(page, "keytrail_");
	put(page, row->name);
	if (!openmetrics(page))
		put(page, sample_suffix(row));
}

static const char *
type_word(const struct page *page, const struct metric_row *row)
{
	static const char *const words[] = {
		[METRIC_COUNTER] = "counter",
		[METRIC_GAUGE] = "gauge",
		[METRIC_HISTOGRAM] = "histogram",
		[METRIC_INFO] = "info",
	};

	if (row->type == METRIC_INFO && !openmetrics(page))
		return words[METRIC_GAUGE];
	return words[row->type];
}

static void
put_about(struct page *page, const char *what, const struct metric_row *row, const char *text)
{
	put(page, "# ");
	put(page, what);
	put(page, " ");
	put_family(page, row);
	put(page, " ");
	put(page, text);
	put(page, "\n");
}

/* ---- samples ---- */

static void
begin_sample(struct page *page, const struct metric_row *row, const char *suffix)
{
	put(page, "keytrail_");
	put(page, row->name);
	put(page, suffix);
}

static void
end_sample(struct page *page, const struct metric_row *row, union value v)
{
	put(page, " ");
	if (row->type == METRIC_GAUGE)
		put_real(page, isnan(v.real) ? 0 : v.real);
	else
		put_integer(page, v.integer);
	put(page, "\n");
}

/* The two labels, or the one, of a value of the first. */
static void
put_labels(struct page *page, const struct metric_row *row, const char *value, unsigned i)
{
	const struct label_kind *kind = &metric_label_kinds[row->labels];
	const struct metrics *m = page->m;

	put_label(page, '{', kind->name, value);
	if (kind->also == NULL)
		return;
	i %= kind->also_slots;
	if (kind->also_words != NULL)
		put_label(page, ',', kind->also, kind->also_words[i]);
	else
		put_label(page, ',', kind->also, i < m->nfigures ? m->figures[i] : "other");
}

static void
put_bound(struct page *page, char before, double bound)
{
	char text[32];

	snprintf(text, sizeof(text), "%.15g", bound);
	/* OpenMetrics' canonical numbers have a point. */
	if (openmetrics(page) && strpbrk(text, ".e") == NULL)
		memcpy(text + strlen(text), ".0", 3);
	put_label(page, before, "le", text);
}

static void
put_bucket(
    struct page *page, const struct metric_row *row, const char *label, unsigned i, uint64_t below)
{
	char before = label != NULL ? ',' : '{';

	begin_sample(page, row, "_bucket");
	if (label != NULL)
		put_labels(page, row, label, 0);
	if (i < row->nbounds)
		put_bound(page, before, row->bounds[i]);
	else
		put_label(page, before, "le", "+Inf");
	put(page, "} ");
	put_integer(page, below);
	put(page, "\n");
}

static void
begin_total(struct page *page, const struct metric_row *row, const char *suffix, const char *label)
{
	begin_sample(page, row, suffix);
	if (label != NULL) {
		put_labels(page, row, label, 0);
		put(page, "}");
	}
	put(page, " ");
}

/* label NULL: it has none. */
static void
put_histogram(
    struct page *page, const struct metric_row *row, const char *label, const union value *v)
{
	uint64_t below = 0;
	double sum = v[row->nbounds + 1].real;

	for (unsigned i = 0; i <= row->nbounds; i++) {
		below += v[i].integer;
		put_bucket(page, row, label, i, below);
	}
	begin_total(page, row, "_sum", label);
	put_real(page, isnan(sum) ? 0 : sum);
	put(page, "\n");
	begin_total(page, row, "_count", label);
	put_integer(page, below);
	put(page, "\n");
}

static void
put_requests(struct page *page, const struct metric_row *row, const union value *v)
{
	for (unsigned i = 0; i < metrics_slots(row); i++) {
		unsigned action = i / (OUTCOMES * CLASSES);
		const char *name = action < page->m->nactions ? page->m->actions[action] : "other";

		if (v[i].integer == 0)
			continue;
		begin_sample(page, row, "_total");
		put_label(page, '{', "action", name);
		put_label(page, ',', "outcome", metric_outcome_words[i / CLASSES % OUTCOMES]);
		put_label(page, ',', "code", metric_class_words[i % CLASSES]);
		put(page, "}");
		end_sample(page, row, v[i]);
	}
}

static void
put_build(struct page *page, const struct metric_row *row)
{
	static const char *const names[] = { "version", "tls", "http_parser" };
	char before = '{';

	begin_sample(page, row, "_info");
	for (unsigned i = 0; i < 3; i++) {
		if (page->m->build[i] == NULL)
			continue;
		put_label(page, before, names[i], page->m->build[i]);
		before = ',';
	}
	put(page, before == ',' ? "} 1\n" : " 1\n");
}

/* The names of a kind that has no fixed words. */
static char *const *
names_of(const struct metrics *m, enum metric_labels labels, unsigned *n)
{
	switch (labels) {
	case LABELS_FILE:
		*n = m->nfiles;
		return m->files;
	case LABELS_ROUTE:
		*n = m->nroutes;
		return m->routes;
	default:
		*n = m->nsinks;
		return m->sinks;
	}
}

/* The label's value, or NULL where the index names nothing to show. */
static const char *
label_value(const struct page *page, const struct metric_row *row, unsigned i, union value v)
{
	const struct label_kind *kind = &metric_label_kinds[row->labels];
	bool zero = row->type != METRIC_GAUGE && v.integer == 0;
	char *const *names;
	unsigned n;

	if (row->unset && isnan(v.real))
		return NULL;
	if (kind->words != NULL)
		return zero && !kind->always ? NULL : kind->words[i];
	names = names_of(page->m, row->labels, &n);
	if (i < n)
		return zero && !kind->always ? NULL : names[i];
	return zero || i + 1 < kind->slots ? NULL : "other";
}

static void
put_labelled(struct page *page, const struct metric_row *row, const union value *v)
{
	unsigned also = metric_label_kinds[row->labels].also_slots;

	for (unsigned i = 0; i < metrics_slots(row); i++) {
		const char *value = label_value(page, row, also > 0 ? i / also : i, v[i]);

		if (value == NULL)
			continue;
		begin_sample(page, row, sample_suffix(row));
		put_labels(page, row, value, i);
		put(page, "}");
		end_sample(page, row, v[i]);
	}
}

static void
put_histograms(struct page *page, const struct metric_row *row, const union value *v)
{
	if (row->labels == LABELS_NONE) {
		put_histogram(page, row, NULL, v);
		return;
	}
	for (unsigned i = 0; i < metric_label_kinds[row->labels].slots; i++) {
		union value all = { .integer = 0 };
		const char *label;

		for (unsigned j = 0; j <= row->nbounds; j++)
			all.integer += v[j].integer;
		if ((label = label_value(page, row, i, all)) != NULL)
			put_histogram(page, row, label, v);
		v += row->nbounds + 2;
	}
}

static void
put_plain(struct page *page, const struct metric_row *row, const union value *v)
{
	if (row->unset && isnan(v->real))
		return;
	begin_sample(page, row, sample_suffix(row));
	end_sample(page, row, *v);
}

static void
put_metric(struct page *page, enum metric_id id)
{
	const struct metric_row *row = &metric_rows[id];
	const union value *v = page->values + page->m->layout[id];

	put_about(page, "HELP", row, row->help);
	put_about(page, "TYPE", row, type_word(page, row));
	if (openmetrics(page) && row->unit != NULL)
		put_about(page, "UNIT", row, row->unit);
	if (id == METRIC_REQUESTS)
		put_requests(page, row, v);
	else if (row->type == METRIC_INFO)
		put_build(page, row);
	else if (row->type == METRIC_HISTOGRAM)
		put_histograms(page, row, v);
	else if (row->labels == LABELS_NONE)
		put_plain(page, row, v);
	else
		put_labelled(page, row, v);
}

int
metrics_render(const struct metrics *m, enum metrics_format format, struct buf *out)
{
	struct page page = { .m = m, .format = format, .out = out };

	if ((page.values = calloc(m->layout[METRIC_COUNT], sizeof(*page.values))) == NULL)
		return -1;
	read_all(&page);
	for (unsigned id = 0; id < METRIC_COUNT; id++)
		put_metric(&page, id);
	if (openmetrics(&page))
		put(&page, "# EOF\n");
	free(page.values);
	return page.failed ? -1 : 0;
}

/* ---- the manual ---- */

static const char *
label_names(const struct metric_row *row)
{
	if (row->labels == LABELS_REQUEST)
		return "`action`, `outcome`, `code`";
	if (row->labels == LABELS_BUILD)
		return "`version`, `tls`, `http_parser`";
	return NULL;
}

static void
put_row(struct page *page, const struct metric_row *row)
{
	const char *label = metric_label_kinds[row->labels].name;

	put(page, "| `");
	put_family(page, row);
	put(page, "` | ");
	put(page, type_word(page, row));
	put(page, " | ");
	if (label != NULL) {
		put(page, "`");
		put(page, label);
		if (metric_label_kinds[row->labels].also != NULL) {
			put(page, "`, `");
			put(page, metric_label_kinds[row->labels].also);
		}
		put(page, "`");
	} else if (label_names(row) != NULL) {
		put(page, label_names(row));
	}
	put(page, " | ");
	put(page, row->help);
	put(page, " |\n");
}

int
metrics_reference(struct buf *out)
{
	struct page page = { .format = METRICS_TEXT_0_0_4, .out = out };

	put(&page, "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
	for (unsigned id = 0; id < METRIC_COUNT; id++)
		put_row(&page, &metric_rows[id]);
	return page.failed ? -1 : 0;
}
