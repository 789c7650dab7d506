#include "event_out.h"

#define MESSAGE_MAX 1024

/* What all members but `details` take at most. */
#define FRAME_MAX   2048
#define DETAILS_CAP (EVENT_HARD_MAX - EVENT_TRAIL_MAX - FRAME_MAX)
/* Kept free for detailsCut. */
#define CUT_ROOM 64

/* The details in order; one more than the caller's for detailsCut. */
struct detail_list {
	size_t n;
	bool cut;
	const struct event_detail *rows[EVENT_DETAILS_MAX + 1];
};

static const struct event_detail details_cut = { "detailsCut", EVENT_DETAIL_BOOL, NULL, 1 };

static void
list_insert(struct detail_list *l, const struct event_detail *d)
{
	size_t i = l->n++;

	for (; i > 0 && strcmp(l->rows[i - 1]->key, d->key) > 0; i--)
		l->rows[i] = l->rows[i - 1];
	assert(i == 0 || strcmp(l->rows[i - 1]->key, d->key) != 0);
	l->rows[i] = d;
}

static void
list_drop(struct detail_list *l, size_t i)
{
	l->n--;
	memmove(&l->rows[i], &l->rows[i + 1], (l->n - i) * sizeof(*l->rows));
	if (!l->cut)
		list_insert(l, &details_cut);
	l->cut = true;
}

/* A string's JSON, at most cap bytes: the length, or -1 when it does not fit. */
static long
render_string(const char *s, char *out, size_t cap)
{
	char clean[3 * EVENT_DETAIL_MAX]; /* U+FFFD takes three bytes */
	size_t n = strlen(s);

	if (n > EVENT_DETAIL_MAX)
		return -1;
	n = scrub_text((struct slice){ s, n }, clean, sizeof(clean));
	return event_json_string((struct slice){ clean, n }, out, cap);
}

/* `,"key":value` in at most cap bytes: the length, or -1 when it does not fit. */
static long
render_detail(const struct event_detail *d, char *out, size_t cap)
{
	struct event_out o = { out, out + cap };
	size_t key = strlen(d->key);
	long n;

	/* The name with its punctuation, and the longest number. */
	if (cap < key + 4 + 20)
		return -1;
	OUT_LIT(&o, ",\"");
	out_bytes(&o, d->key, key);
	OUT_LIT(&o, "\":");
	if (d->type == EVENT_DETAIL_NUMBER) {
		event_out_number(&o, d->number);
	} else if (d->type == EVENT_DETAIL_BOOL) {
		const char *word = d->number != 0 ? "true" : "false";

		out_bytes(&o, word, strlen(word));
	} else {
		if ((n = render_string(d->string, o.p, (size_t)(o.end - o.p))) == -1)
			return -1;
		o.p += n;
	}
	return o.p - out;
}

/* All of the list: the length, or -1 with *at the first detail that does not fit. */
static long
render_list(const struct detail_list *l, char *out, size_t cap, size_t *at)
{
	size_t used = 0;

	for (*at = 0; *at < l->n; ++*at) {
		const struct event_detail *d = l->rows[*at];
		size_t end = d == &details_cut ? cap : cap - CUT_ROOM;
		long n = render_detail(d, out + used, end - used);

		if (n == -1)
			return -1;
		used += (size_t)n;
	}
	return (long)used;
}

static void
render_details(struct event_out *o, const struct event_self *ev)
{
	struct detail_list l = { 0 };
	char *from = o->p;
	size_t at;
	long n;

	assert(ev->ndetails <= EVENT_DETAILS_MAX);
	for (size_t i = 0; i < ev->ndetails; i++)
		list_insert(&l, &ev->details[i]);
	while ((n = render_list(&l, from, DETAILS_CAP, &at)) == -1)
		list_drop(&l, at);
	/* Each detail begins with a comma; the first one's place is the brace's. */
	o->p = n > 0 ? from + n : from + 1;
	*from = '{';
	OUT_LIT(o, "}");
}

size_t
event_render_self(const char *observer_id, const struct event_self *ev, char *out)
{
	struct event_out o = { out, out + EVENT_HARD_MAX - EVENT_TRAIL_MAX };
	char text[MESSAGE_MAX];
	size_t n;

	OUT_LIT(&o, "{\"action\":\"");
	out_text(&o, ev->action, EVENT_ACTION_MAX);
	OUT_LIT(&o, "\",\"dataEvent\":false,\"details\":");
	render_details(&o, ev);
	OUT_LIT(&o, ",\"eventTime\":\"");
	clock_event_time(ev->time_ns, text);
	out_bytes(&o, text, CLOCK_EVENT_TIME_SIZE - 1);
	OUT_LIT(&o, "\",\"id\":\"");
	out_text(&o, ev->id, CLOCK_UUID_SIZE - 1);
	OUT_LIT(&o, "\",\"message\":\"");
	n = scrub_text(slice_of(ev->message), text, sizeof(text));
	event_out_text(&o, (struct slice){ text, n }, MESSAGE_MAX);
	OUT_LIT(&o, "\",\"observer\":{\"id\":\"");
	out_text(&o, observer_id, EVENT_SERVICE_MAX);
	OUT_LIT(&o, "\",\"name\":\"ActivityTracker\"},\"outcome\":\"");
	out_text(&o, event_outcome_name(ev->outcome), EVENT_SERVICE_MAX);
	OUT_LIT(&o, "\",\"saveServiceCopy\":true,\"severity\":\"");
	out_text(&o, severity_name(ev->severity), EVENT_SERVICE_MAX);
	OUT_LIT(&o, "\"");
	return (size_t)(o.p - out);
}
