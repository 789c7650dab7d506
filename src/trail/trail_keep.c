/*
 * What must be kept: the file `holds`, and the retention of the run before, the file `retention`.
 *
 * holds: "keytrail-holds 1", a line "NAME FIRST LAST" for each, and "sum " with the CRC-32C of all
 * that precedes it, in hex.  retention: seconds, a space, bytes.
 */
#include "keytrail/crc32c.h"
#include "keytrail/fault.h"
#include "keytrail/file.h"
#include "trail_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define FILE_MAX    16384
#define HOLDS_TITLE "keytrail-holds 1\n"
#define SUM_FORMAT  "sum %08x\n"
#define SUM_SIZE    13
#define DAMAGED	    1 /* no file has that sum */

/* ---- small files ---- */

int
trail_replace_file(struct trail *t, const char *name, struct slice text, struct err *err)
{
	if (file_replace(t->dirfd, name, 0600, text, err) == -1)
		return err_prefix(err, "%s", t->path);
	return 0;
}

/* 1, or 0: there is no such file. */
static int
read_file(struct trail *t, const char *name, char text[FILE_MAX + 1], struct err *err)
{
	int fd = openat(t->dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t n;

	if (fd == -1)
		return errno == ENOENT ? 0 : err_set_errno(err, "%s: open %s", t->path, name);
	n = file_read(fd, text, FILE_MAX, 0);
	close(fd);
	if (n == -1)
		return err_set_errno(err, "%s: read %s", t->path, name);
	text[n] = '\0';
	return 1;
}

/* What is before the next separator, which is taken off too; empty when there is none. */
static struct slice
take_word(struct slice *rest, char separator)
{
	const char *end = memchr(rest->p, separator, rest->n);
	struct slice word = { rest->p, end != NULL ? (size_t)(end - rest->p) : 0 };

	*rest = slice_sub(*rest, end != NULL ? word.n + 1 : rest->n, rest->n);
	return word;
}

/* ---- retention ---- */

int
trail_save_retention(struct trail *t, const struct trail_retention *r, struct err *err)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64 "\n", r->age_s, r->max_size);

	return trail_replace_file(t, "retention", (struct slice){ text, (size_t)n }, err);
}

bool
trail_load_retention(struct trail *t, struct trail_retention *out)
{
	struct trail_retention r;
	char text[FILE_MAX + 1];
	struct slice rest;
	struct err err;

	if (read_file(t, "retention", text, &err) != 1)
		return false;
	rest = slice_of(text);
	if (slice_to_u64(take_word(&rest, ' '), &r.age_s) == -1 ||
	    slice_to_u64(take_word(&rest, '\n'), &r.max_size) == -1)
		return false;
	*out = r;
	return true;
}

bool
trail_keeps_shorter(const struct trail_retention *r, const struct trail_retention *than)
{
	return r->age_s < than->age_s;
}

bool
trail_keeps_smaller(const struct trail_retention *r, const struct trail_retention *than)
{
	return r->max_size != 0 && (than->max_size == 0 || r->max_size < than->max_size);
}

/* ---- holds ---- */

static bool
hold_valid(const struct trail_hold *h)
{
	static const char chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-_.";

	return h->name[0] != '\0' && strspn(h->name, chars) == strlen(h->name) && h->first > 0 &&
	       h->first <= h->last && h->last < TRAIL_SEQ_END;
}

static size_t
render_holds(const struct trail_holds *holds, char text[FILE_MAX])
{
	size_t n = (size_t)snprintf(text, FILE_MAX, HOLDS_TITLE);

	for (size_t i = 0; i < holds->n; i++)
		n += (size_t)snprintf(text + n, FILE_MAX - n, "%s %" PRIu64 " %" PRIu64 "\n",
		    holds->holds[i].name, holds->holds[i].first, holds->holds[i].last);
	return n + (size_t)snprintf(text + n, FILE_MAX - n, SUM_FORMAT, crc32c(0, text, n));
}

static uint64_t
sum_holds(size_t n, struct slice text)
{
	return (uint64_t)(n + 1) << 32 | crc32c(0, text.p, text.n);
}

static bool
parse_hold(struct slice line, struct trail_hold *out)
{
	struct slice name = take_word(&line, ' ');

	if (name.n >= sizeof(out->name))
		return false;
	slice_to_cstr(name, out->name, sizeof(out->name));
	return slice_to_u64(take_word(&line, ' '), &out->first) == 0 &&
	       slice_to_u64(line, &out->last) == 0 && hold_valid(out);
}

static bool
parse_holds(struct slice text, struct trail_holds *out)
{
	struct slice rest = text, title = slice_of(HOLDS_TITLE);
	char sum[SUM_SIZE + 1];

	if (text.n < title.n + SUM_SIZE || !slice_has_prefix(text, title))
		return false;
	rest = slice_sub(text, title.n, text.n - SUM_SIZE);
	text.n -= SUM_SIZE;
	snprintf(sum, sizeof(sum), SUM_FORMAT, crc32c(0, text.p, text.n));
	if (memcmp(text.p + text.n, sum, SUM_SIZE) != 0)
		return false;
	for (; rest.n > 0 && out->n < TRAIL_HOLDS_MAX; out->n++)
		if (!parse_hold(take_word(&rest, '\n'), &out->holds[out->n]))
			return false;
	return rest.n == 0;
}

static bool
says_nothing_of_the_file(int error)
{
	return error == EIO || error == EMFILE || error == ENFILE || error == ENOMEM;
}

/* -1: it cannot be read now.  *sum 0: there is no such file. */
static int
read_holds(struct trail *t, struct trail_holds *out, uint64_t *sum, struct err *err)
{
	char text[FILE_MAX + 1];
	int rc = read_file(t, "holds", text, err);

	*out = (struct trail_holds){ .n = 0 };
	*sum = 0;
	if (rc == -1 && says_nothing_of_the_file(errno))
		return -1;
	if (rc == 0)
		return 0;
	*sum = rc == 1 && parse_holds(slice_of(text), out) ? sum_holds(out->n, slice_of(text))
							   : DAMAGED;
	return 0;
}

static bool
is_known(const struct trail_holds_sums *known, uint64_t sum)
{
	return sum == known->was || sum == known->is;
}

static struct trail_holds_sums
known_sums(struct trail *t)
{
	struct trail_holds_sums known;

	pthread_mutex_lock(&t->page_lock);
	known = t->page.holds;
	pthread_mutex_unlock(&t->page_lock);
	return known;
}

void
trail_load_holds(struct trail *t, const struct trail_holds_sums *known)
{
	struct trail_holds found;
	uint64_t sum;
	struct err err;

	t->holds_unread = read_holds(t, &found, &sum, &err) == -1;
	t->page.holds = known != NULL ? *known : (struct trail_holds_sums){ sum, sum };
	if (!t->holds_unread && sum != DAMAGED && is_known(&t->page.holds, sum)) {
		t->holds = found;
		t->holds_sum = sum;
		return;
	}
	if (!t->holds_unread)
		err_set(&err, "%s/holds %s", t->path,
		    sum == 0	     ? "is gone"
		    : sum == DAMAGED ? "is damaged"
				     : "is not the file that keytrail wrote");
	t->holds_sum = t->page.holds.is;
	err_set(&t->holds.damage,
	    "%s: nothing is removed, and no hold changed; put the right file there and restart, or "
	    "have \"keytrail hold reset\" begin without holds",
	    err.msg);
}

/* What cannot be read now tells nothing. */
bool
trail_holds_are_there(struct trail *t)
{
	struct trail_holds_sums known;
	struct trail_holds found;
	uint64_t sum;
	struct err err;
	bool there;

	if (pthread_mutex_trylock(&t->holds_lock) != 0) /* they change */
		return true;
	known = known_sums(t);
	there = t->holds_unread ||
		(t->holds.damage.msg[0] == '\0' &&
		    (read_holds(t, &found, &sum, &err) == -1 || is_known(&known, sum)));
	pthread_mutex_unlock(&t->holds_lock);
	return there;
}

bool
trail_is_held(const struct trail *t, uint64_t first, uint64_t last)
{
	const struct trail_holds *holds = &t->holds;

	if (holds->damage.msg[0] != '\0')
		return true;
	for (size_t i = 0; i < holds->n; i++)
		if (holds->holds[i].first <= last && first <= holds->holds[i].last)
			return true;
	return false;
}

static size_t
find_hold(const struct trail_holds *holds, const char *name)
{
	size_t i = 0;

	while (i < holds->n && strcmp(holds->holds[i].name, name) != 0)
		i++;
	return i;
}

/* To the file as it was, and as it is or shall be. */
static int
know_sums(struct trail *t, uint64_t was, uint64_t is, struct err *err)
{
	int rc;

	pthread_mutex_lock(&t->page_lock);
	t->page.holds = (struct trail_holds_sums){ was, is };
	rc = trail_state_identify(t->state, &t->page, err);
	pthread_mutex_unlock(&t->page_lock);
	return rc;
}

/* The file as the holds are: none where there was none. */
static int
put_back(struct trail *t, struct err *err)
{
	char text[FILE_MAX];
	struct slice s = { text, render_holds(&t->holds, text) };

	if (t->holds_sum != 0)
		return trail_replace_file(t, "holds", s, err);
	if ((unlinkat(t->dirfd, "holds", 0) == -1 && errno != ENOENT) || fsync(t->dirfd) == -1)
		return err_set_errno(err, "%s: remove holds", t->path);
	return 0;
}

/* After a change that failed the file may be either one, until it was written once more. */
static int
undo_change(struct trail *t, struct err *err)
{
	uint64_t sum = t->holds_sum;

	if (known_sums(t).is == sum)
		return 0;
	/* What is damaged stays as it is. */
	if (t->holds.damage.msg[0] == '\0' && put_back(t, err) == -1)
		return -1;
	return know_sums(t, sum, sum, err);
}

static int
replace_holds(struct trail *t, const struct trail_holds *next, struct err *err)
{
	char text[FILE_MAX];
	struct slice s = { text, render_holds(next, text) };
	uint64_t sum = sum_holds(next->n, s);
	struct err ignored;

	if (undo_change(t, err) == -1 || know_sums(t, t->holds_sum, sum, err) == -1)
		return -1;
	FAULT_POINT("hold.after_page");
	if (trail_replace_file(t, "holds", s, err) == -1) {
		undo_change(t, &ignored);
		return -1;
	}
	t->holds_sum = sum;
	FAULT_POINT("hold.after_file");
	return 0;
}

int
trail_write_holds(struct trail *t, struct err *err)
{
	int rc = -1;

	pthread_mutex_lock(&t->holds_lock);
	if (t->holds.damage.msg[0] == '\0')
		rc = replace_holds(t, &t->holds, err);
	pthread_mutex_unlock(&t->holds_lock);
	return rc;
}

/* On the disk first.  Nothing is removed between the answer to who asked and the next look. */
static int
adopt_holds(struct trail *t, const struct trail_holds *next, struct err *err)
{
	int rc;

	pthread_mutex_lock(&t->holds_lock);
	if ((rc = replace_holds(t, next, err)) == 0) {
		t->holds = *next;
		t->holds_unread = false;
	}
	pthread_mutex_unlock(&t->holds_lock);
	return rc;
}

bool
trail_holds_are_settled(struct trail *t)
{
	struct trail_holds_sums known = known_sums(t);

	return known.was == known.is || t->holds.damage.msg[0] != '\0';
}

int
trail_holds_settled(struct trail *t, struct err *err)
{
	int rc;

	pthread_mutex_lock(&t->holds_lock);
	if ((rc = undo_change(t, err)) == 0)
		rc = know_sums(t, t->holds_sum, t->holds_sum, err);
	pthread_mutex_unlock(&t->holds_lock);
	return rc;
}

int
trail_hold_add(struct trail *t, const struct trail_hold *hold, struct err *err)
{
	struct trail_holds next = t->holds;

	if (next.damage.msg[0] != '\0')
		return err_set(err, "%s", next.damage.msg);
	if (!hold_valid(hold))
		return err_set(err,
		    "wanted a name of letters, digits, '-', '_' and '.', at most %d, and a range "
		    "of numbers from 1 on",
		    TRAIL_HOLD_NAME_SIZE - 1);
	if (find_hold(&next, hold->name) < next.n)
		return err_set(err, "there is a hold \"%s\" already", hold->name);
	if (next.n == TRAIL_HOLDS_MAX)
		return err_set(err, "there are %d holds; no more can be had", TRAIL_HOLDS_MAX);
	next.holds[next.n++] = *hold;
	return adopt_holds(t, &next, err);
}

int
trail_hold_find(const struct trail *t, const char *name, struct trail_hold *out, struct err *err)
{
	size_t i = find_hold(&t->holds, name);

	if (t->holds.damage.msg[0] != '\0')
		return err_set(err, "%s", t->holds.damage.msg);
	if (i == t->holds.n)
		return err_set(err, "there is no hold of that name");
	*out = t->holds.holds[i];
	return 0;
}

int
trail_hold_remove(struct trail *t, const char *name, struct err *err)
{
	struct trail_holds next = t->holds;
	size_t i = find_hold(&next, name);

	assert(i < next.n);
	memmove(&next.holds[i], &next.holds[i + 1], (--next.n - i) * sizeof(next.holds[0]));
	return adopt_holds(t, &next, err);
}

int
trail_holds_reset(struct trail *t, struct err *err)
{
	const struct trail_holds none = { .n = 0 };

	return adopt_holds(t, &none, err);
}

const struct trail_holds *
trail_holds(const struct trail *t)
{
	return &t->holds;
}

/* ---- which numbers a time had ---- */

void
trail_first_time(const struct trail *t, uint64_t segment, char out[TRAIL_TIME_SIZE])
{
	char text[TRAIL_LINE_MAX], *end;
	int fd =
	    openat(t->dirfd, trail_segment_name(segment, "").s, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd != -1 ? file_read(fd, text, sizeof(text), 0) : -1;
	struct trail_member member;

	out[0] = '\0';
	if (fd != -1)
		close(fd);
	if (n <= 0 || (end = memchr(text, '\n', (size_t)n)) == NULL ||
	    trail_parse_line((struct slice){ text, (size_t)(end - text) }, &member) == -1 ||
	    !trail_owns(&t->log, &member))
		return;
	snprintf(out, TRAIL_TIME_SIZE, "%.*s", (int)member.at.n, member.at.p);
}

int
trail_seq_range(struct trail *t, const char *from, const char *to, uint64_t *first, uint64_t *last,
    struct err *err)
{
	char at[TRAIL_TIME_SIZE];
	struct trail_list l;
	size_t i;

	if (trail_list_segments(t->dirfd, &l, err) == -1)
		return -1;
	*first = l.n > 0 ? l.first[0] : 1;
	*last = TRAIL_SEQ_END - 1;
	for (i = l.n; i > 0; i--) {
		trail_first_time(t, l.first[i - 1], at);
		if (at[0] == '\0' || strcmp(at, to) <= 0)
			break;
		*last = l.first[i - 1] > 1 ? l.first[i - 1] - 1 : 1;
	}
	for (i = l.n; i > 0; i--) {
		trail_first_time(t, l.first[i - 1], at);
		if (at[0] != '\0' && strcmp(at, from) <= 0) {
			*first = l.first[i - 1];
			break;
		}
	}
	trail_list_free(&l);
	return 0;
}
