/*
 * err: why a call failed, in one line that a person can act on.
 *
 * A function that can fail takes a struct err, fills it and returns -1 (or NULL where it returns
 * a pointer).  The message says what was wanted and where; it never holds a secret.  Any thread.
 */
#ifndef KEYTRAIL_ERR_H
#define KEYTRAIL_ERR_H

#define ERR_MSG_MAX 512 /* bytes with the NUL; longer messages are cut */

struct err {
	char msg[ERR_MSG_MAX];
};

/* Set the message; returns -1, so that callers can write `return err_set(...)`. */
int err_set(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The same, followed by ": " and the text of errno, which stays. */
int err_set_errno(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Put "<text>: " in front of the message that is there; returns -1. */
int err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
