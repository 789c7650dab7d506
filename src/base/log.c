#include "keytrail/log.h"

#include "keytrail/clock.h"
#include "keytrail/outfd.h"
#include "keytrail/slice.h"
#include "keytrail/utf8.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BUFFER_SIZE   (256u * 1024)
#define MESSAGE_MAX   1001 /* with the NUL */
#define LINE_MAX_SIZE (MESSAGE_MAX * 6 + 256)
#define WINDOW_NS     (10 * CLOCK_NS_PER_S)
#define WINDOW_LINES  20
#define WORDS_MAX     96
#define FREE_WAIT_MS  1000

struct word {
	const char *event;
	int64_t since; /* start of the window */
	unsigned lines;
	uint64_t suppressed; /* in this window, not yet reported */
};

struct log {
	struct outfd out;
	int wakeup;
	_Atomic int level;
	int64_t (*mono_ns)(void);
	_Atomic uint64_t suppressed, dropped;

	pthread_mutex_t lock; /* guards what follows */
	struct word words[WORDS_MAX];
	size_t nwords;
	bool woken;
	uint64_t dropped_unreported;
	size_t head, len; /* of the circular buffer */
	char buffer[BUFFER_SIZE];
};

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARN] = "warn",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
	[LOG_LEVEL_TRACE] = "trace",
	[LOG_LEVEL_NOTICE] = "notice",
};

struct log *
log_new(int fd, enum log_level level)
{
	struct log *log = calloc(1, sizeof(*log));

	if (log == NULL)
		return NULL;
	if ((log->wakeup = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) == -1) {
		free(log);
		return NULL;
	}
	outfd_init(&log->out, fd);
	log->level = (int)level;
	log->mono_ns = clock_mono_ns;
	pthread_mutex_init(&log->lock, NULL);
	return log;
}

int
log_wakeup_fd(const struct log *log)
{
	return log->wakeup;
}

void
log_set_clock(struct log *log, int64_t (*mono_ns)(void))
{
	log->mono_ns = mono_ns;
}

void
log_set_level(struct log *log, enum log_level level)
{
	atomic_store_explicit(&log->level, (int)level, memory_order_relaxed);
}

static bool
is_enabled(const struct log *log, enum log_level level)
{
	return level == LOG_LEVEL_NOTICE ||
	       (int)level <= atomic_load_explicit(&log->level, memory_order_relaxed);
}

uint64_t
log_suppressed_total(const struct log *log)
{
	return atomic_load_explicit(&log->suppressed, memory_order_relaxed);
}

uint64_t
log_dropped_total(const struct log *log)
{
	return atomic_load_explicit(&log->dropped, memory_order_relaxed);
}

/* ---- the text of a line ---- */

static char *
put_rune(char *o, uint32_t rune)
{
	if (rune >= 0x10000) {
		rune -= 0x10000;
		return o +
		       sprintf(o, "\\u%04x\\u%04x", 0xd800 + (rune >> 10), 0xdc00 + (rune & 0x3ff));
	}
	if (rune < 0x20 || rune >= 0x7f)
		return o + sprintf(o, "\\u%04x", rune);
	if (rune == '"' || rune == '\\')
		*o++ = '\\';
	*o++ = (char)rune;
	return o;
}

/* One JSON line into out (LINE_MAX_SIZE bytes); its length. */
static size_t
format_line(char *out, enum log_level level, const char *event, const char *message)
{
	struct slice rest = slice_of(message);
	char now[CLOCK_RFC3339_SIZE];
	char *o = out;

	clock_rfc3339(clock_wall_ns(), now);
	o +=
	    snprintf(o, 192, "{\"time\":\"%s\",\"level\":\"%s\",\"event\":\"%.64s\",\"message\":\"",
		now, level_names[level], event);
	while (rest.n > 0) {
		uint32_t rune = UTF8_REPLACEMENT;
		size_t used = utf8_decode(rest.p, rest.n, &rune);

		o = put_rune(o, used == 0 ? UTF8_REPLACEMENT : rune);
		rest = slice_sub(rest, used == 0 ? 1 : used, rest.n);
	}
	memcpy(o, "\"}\n", 3);
	return (size_t)(o + 3 - out);
}

/* ---- the buffer; the caller holds the lock ---- */

static bool
append_locked(struct log *log, const char *line, size_t n)
{
	size_t tail = (log->head + log->len) % BUFFER_SIZE;
	size_t first = n < BUFFER_SIZE - tail ? n : BUFFER_SIZE - tail;

	if (n > BUFFER_SIZE - log->len)
		return false;
	memcpy(log->buffer + tail, line, first);
	memcpy(log->buffer, line + first, n - first);
	log->len += n;
	return true;
}

static void
report_dropped_locked(struct log *log)
{
	char message[64], line[LINE_MAX_SIZE];

	/* Once, when the reader is back, and not once for each line that just did not fit. */
	if (log->dropped_unreported == 0 || log->len > BUFFER_SIZE / 2)
		return;
	snprintf(message, sizeof(message), "%llu lines dropped for want of room",
	    (unsigned long long)log->dropped_unreported);
	if (append_locked(log, line, format_line(line, LOG_LEVEL_WARN, "log_dropped", message)))
		log->dropped_unreported = 0;
}

static void
add_line_locked(struct log *log, const char *line, size_t n)
{
	report_dropped_locked(log);
	if (log->dropped_unreported > 0 || !append_locked(log, line, n)) {
		log->dropped_unreported++;
		atomic_fetch_add_explicit(&log->dropped, 1, memory_order_relaxed);
	}
}

static void
report_suppressed_locked(struct log *log, struct word *w)
{
	char message[160], line[LINE_MAX_SIZE];

	if (w->suppressed == 0)
		return;
	snprintf(message, sizeof(message), "%llu lines of %.64s suppressed",
	    (unsigned long long)w->suppressed, w->event);
	w->suppressed = 0;
	add_line_locked(log, line, format_line(line, LOG_LEVEL_WARN, "log_suppressed", message));
}

static void
end_windows_locked(struct log *log, int64_t now)
{
	for (size_t i = 0; i < log->nwords; i++)
		if (now - log->words[i].since >= WINDOW_NS)
			report_suppressed_locked(log, &log->words[i]);
}

static struct word *
find_word_locked(struct log *log, const char *event, int64_t now)
{
	struct word *oldest = &log->words[0];

	for (size_t i = 0; i < log->nwords; i++) {
		struct word *w = &log->words[i];

		if (w->event == event || strcmp(w->event, event) == 0)
			return w;
		if (w->since < oldest->since)
			oldest = w;
	}
	if (log->nwords < WORDS_MAX)
		oldest = &log->words[log->nwords++];
	else
		report_suppressed_locked(log, oldest);
	*oldest = (struct word){ .event = event, .since = now };
	return oldest;
}

static bool
admit_locked(struct log *log, const char *event, int64_t now)
{
	struct word *w = find_word_locked(log, event, now);

	if (now - w->since >= WINDOW_NS) {
		w->since = now;
		w->lines = 0;
	}
	if (w->lines < WINDOW_LINES) {
		w->lines++;
		return true;
	}
	w->suppressed++;
	atomic_fetch_add_explicit(&log->suppressed, 1, memory_order_relaxed);
	return false;
}

/* ---- producers ---- */

static bool
admit(struct log *log, const char *event)
{
	int64_t now = log->mono_ns();
	bool ok;

	pthread_mutex_lock(&log->lock);
	end_windows_locked(log, now);
	ok = admit_locked(log, event, now);
	pthread_mutex_unlock(&log->lock);
	return ok;
}

static void
wake(struct log *log)
{
	uint64_t one = 1;

	/* A failure means that the counter is full, and then the reader is awake. */
	if (write(log->wakeup, &one, sizeof(one)) == -1)
		assert(errno == EAGAIN);
}

void
log_write(struct log *log, enum log_level level, const char *event, const char *fmt, ...)
{
	char message[MESSAGE_MAX], line[LINE_MAX_SIZE];
	int saved = errno;
	size_t n;
	bool sleeping;
	va_list ap;

	if (!is_enabled(log, level) || !admit(log, event))
		return;
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	n = format_line(line, level, event, message);

	pthread_mutex_lock(&log->lock);
	add_line_locked(log, line, n);
	sleeping = !log->woken;
	log->woken = true;
	pthread_mutex_unlock(&log->lock);
	if (sleeping)
		wake(log);
	errno = saved;
}

/* ---- the one consumer ---- */

/* The next whole lines, copied, since a line may lie across the end of the buffer. */
static size_t
next_piece(struct log *log, char piece[PIPE_BUF])
{
	size_t n, first;

	pthread_mutex_lock(&log->lock);
	report_dropped_locked(log);
	n = log->len < PIPE_BUF ? log->len : PIPE_BUF;
	first = n < BUFFER_SIZE - log->head ? n : BUFFER_SIZE - log->head;
	memcpy(piece, log->buffer + log->head, first);
	memcpy(piece + first, log->buffer, n - first);
	pthread_mutex_unlock(&log->lock);
	return outfd_whole_lines(piece, n);
}

static void
consume(struct log *log, size_t n)
{
	pthread_mutex_lock(&log->lock);
	log->head = (log->head + n) % BUFFER_SIZE;
	log->len -= n;
	pthread_mutex_unlock(&log->lock);
}

/* The descriptor is gone for good: nobody reads it. */
static void
discard(struct log *log)
{
	uint64_t lines = 0;

	pthread_mutex_lock(&log->lock);
	for (size_t i = 0; i < log->len; i++)
		lines += log->buffer[(log->head + i) % BUFFER_SIZE] == '\n';
	log->len = 0;
	log->dropped_unreported = 0;
	pthread_mutex_unlock(&log->lock);
	atomic_fetch_add_explicit(&log->dropped, lines, memory_order_relaxed);
}

static void
begin_flush(struct log *log)
{
	uint64_t count;
	int64_t now = log->mono_ns();

	if (read(log->wakeup, &count, sizeof(count)) == -1)
		assert(errno == EAGAIN);
	pthread_mutex_lock(&log->lock);
	log->woken = false;
	end_windows_locked(log, now);
	pthread_mutex_unlock(&log->lock);
}

bool
log_flush(struct log *log)
{
	char piece[PIPE_BUF];
	size_t n;

	begin_flush(log);
	while ((n = next_piece(log, piece)) > 0) {
		ssize_t w = outfd_write(&log->out, piece, n);

		if (w == 0)
			return false;
		if (w == -1) {
			discard(log);
			return true;
		}
		consume(log, (size_t)w);
	}
	return true;
}

void
log_free(struct log *log)
{
	int64_t deadline = clock_mono_ns() + FREE_WAIT_MS * CLOCK_NS_PER_MS;
	struct pollfd pfd;

	if (log == NULL)
		return;
	pthread_mutex_lock(&log->lock);
	for (size_t i = 0; i < log->nwords; i++)
		report_suppressed_locked(log, &log->words[i]);
	pthread_mutex_unlock(&log->lock);
	pfd = (struct pollfd){ .fd = log->out.fd, .events = POLLOUT };
	while (!log_flush(log) && clock_mono_ns() < deadline)
		poll(&pfd, 1, 50);
	outfd_fini(&log->out);
	close(log->wakeup);
	pthread_mutex_destroy(&log->lock);
	free(log);
}
