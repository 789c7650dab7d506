/*
 * metrics_table: what metrics.c and metrics_text.c share, and nobody else: the rows and the cells.
 *
 * A metric owns `slots` cells of a shard, from cell metrics_layout(id) on: one a label value; for a
 * histogram one a bucket, one for +Inf and one for the sum.  A cell is 64 bits: a counter's integer
 * or the bits of a double.
 */
#ifndef KEYTRAIL_METRICS_TABLE_H
#define KEYTRAIL_METRICS_TABLE_H

#include "keytrail/metrics.h"

#include <stdatomic.h>
#include <stdbool.h>

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_INFO };

enum metric_labels {
	LABELS_NONE,
	LABELS_REQUEST, /* action, outcome, code */
	LABELS_REFUSAL,
	LABELS_TLS_FAILURE,
	LABELS_UPSTREAM_FAILURE,
	LABELS_RESUMED,
	LABELS_LOSS,
	LABELS_TRAIL_OP,
	LABELS_RESULT,
	LABELS_ADMIN_REFUSAL,
	LABELS_SINK,
	LABELS_ATTEMPT, /* sink, result */
	LABELS_FIGURE,	/* sink, figure */
	LABELS_FILE,
	LABELS_ROUTE,
	LABELS_BUILD,
	LABELS_KINDS
};

#define OUTCOMES METRIC_OUTCOMES
#define CLASSES	 6 /* none, 1xx ... 5xx */

struct metric_row {
	const char *name; /* of the family, without keytrail_ and _total */
	enum metric_type type;
	const char *unit; /* the name's last word, or NULL */
	enum metric_labels labels;
	bool unset;	      /* a gauge that is left out until it is set */
	const double *bounds; /* of a histogram, ascending */
	unsigned nbounds;
	const char *help;
};

/* How the values of a kind of label are called and shown. */
struct label_kind {
	const char *name;	  /* of the label; NULL: more than one */
	const char *const *words; /* by index; NULL: names that were registered */
	unsigned slots;
	bool always; /* shown at 0 too */
	/* A second label: the slots of one value of the first lie together. */
	const char *also;
	const char *const *also_words; /* NULL: names that were registered */
	unsigned also_slots;
};

extern const struct metric_row metric_rows[METRIC_COUNT];
extern const struct label_kind metric_label_kinds[LABELS_KINDS];
extern const char *const metric_outcome_words[OUTCOMES];
extern const char *const metric_class_words[CLASSES];

struct metrics_shard {
	struct metrics_shard *next;
	const unsigned *layout; /* first cell of each metric */
	size_t size;		/* of the mapping */
	/* The cells start on a cache line of their own. */
	_Alignas(64) _Atomic uint64_t cells[];
};

struct metrics {
	struct metrics_shard *shards;
	unsigned layout[METRIC_COUNT + 1];	/* the last: how many cells in all */
	char *actions[METRICS_ACTIONS_MAX + 1]; /* "other" last */
	unsigned nactions;
	char *routes[METRICS_ROUTES_MAX + 1];
	unsigned nroutes;
	char *sinks[METRICS_SINKS_MAX + 1];
	unsigned nsinks;
	char *files[METRICS_FILES_MAX + 1];
	unsigned nfiles;
	char *figures[METRICS_FIGURES_MAX + 1];
	unsigned nfigures;
	char *build[3]; /* version, tls, http_parser */
};

/* Of all labels' values; a histogram has nbounds + 2 for each. */
unsigned metrics_slots(const struct metric_row *row);

/* Sums of one cell over the shards. */
uint64_t metrics_sum_integer(const struct metrics *m, unsigned cell);
double metrics_sum_double(const struct metrics *m, unsigned cell); /* NAN: nobody set it */

#endif
