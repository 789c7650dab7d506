/*
 * log: keytrail's own log: one JSON object a line, on standard error.
 *
 * {"time":"<RFC 3339>","level":"warn","event":"<fixed word>","message":"..."}.  Text is ASCII with
 * everything else escaped, so that no value can forge a line; a message is cut at 1000 bytes;
 * callers never pass a client's bytes or a secret.
 *
 * Any thread may log; nobody blocks.  Lines go to a bounded buffer (256 KiB) under a short lock,
 * and log_flush, called by the main thread when the descriptor is writable, writes them.  What does
 * not fit is dropped and counted; the count is written as soon as there is room.  Each `event`
 * word is limited to 20 lines in 10 seconds; the suppressed ones are counted and reported by a line
 * with event "log_suppressed" when the ten seconds are over and somebody logs or flushes.
 */
#ifndef KEYTRAIL_LOG_H
#define KEYTRAIL_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARN,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
	LOG_LEVEL_TRACE,
	LOG_LEVEL_NOTICE /* of lines alone: they are written at every level */
};

struct log;

struct log *log_new(int fd, enum log_level level); /* NULL when memory or descriptors are short */
void log_free(struct log *log);			   /* flushes what can be written in a second */

/* An eventfd that becomes readable when a line was added since the last flush. */
int log_wakeup_fd(const struct log *log);

/* Write without blocking (main thread).  True when everything is out; false when the descriptor is
 * full: flush again a little later, the eventfd only tells of new lines. */
bool log_flush(struct log *log);

/* Another monotonic clock for the rate limit, for tests; before other threads log. */
void log_set_clock(struct log *log, int64_t (*mono_ns)(void));

void log_set_level(struct log *log, enum log_level level);

/* `event` is a fixed word in snake_case, a string literal. */
void log_write(struct log *log, enum log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

uint64_t log_suppressed_total(const struct log *log); /* by the rate limit */
uint64_t log_dropped_total(const struct log *log);    /* for want of room */

#define log_error(log, event, ...)  log_write(log, LOG_LEVEL_ERROR, event, __VA_ARGS__)
#define log_warn(log, event, ...)   log_write(log, LOG_LEVEL_WARN, event, __VA_ARGS__)
#define log_info(log, event, ...)   log_write(log, LOG_LEVEL_INFO, event, __VA_ARGS__)
#define log_notice(log, event, ...) log_write(log, LOG_LEVEL_NOTICE, event, __VA_ARGS__)
#define log_debug(log, event, ...)  log_write(log, LOG_LEVEL_DEBUG, event, __VA_ARGS__)

#endif
