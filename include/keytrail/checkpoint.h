/*
 * checkpoint: signed notes and checkpoints of a log (C2SP signed-note and tlog-checkpoint), signed
 * and checked with plain Ed25519 keys (RFC 8032).
 *
 * A note is a text, an empty line and signature lines; a checkpoint is a note of which the text is
 * the log's origin, the tree's size and its root.  Parsing is strict: there is one text of a
 * checkpoint.  A verifier key's text is `<name>+<id>+<base64>`, a signing key's
 * `PRIVATE+KEY+<name>+<id>+<base64>`, as Go's sumdb/note writes them.  Pure; any thread.
 */
#ifndef KEYTRAIL_CHECKPOINT_H
#define KEYTRAIL_CHECKPOINT_H

#include "keytrail/buf.h"
#include "keytrail/err.h"
#include "keytrail/merkle.h"

#define CHECKPOINT_NAME_MAX   128 /* bytes of a key's name */
#define CHECKPOINT_KEY_MAX    256 /* bytes of a key's text, with a NUL */
#define CHECKPOINT_NOTE_MAX   8192
#define CHECKPOINT_ORIGIN_MAX 256

/* ---- keys ---- */

struct checkpoint_key {
	char name[CHECKPOINT_NAME_MAX + 1];
	uint32_t id;
	unsigned char bytes[32];
};

bool checkpoint_key_equal(const struct checkpoint_key *a, const struct checkpoint_key *b);
int checkpoint_key_parse(struct slice text, struct checkpoint_key *out, struct err *err);
void checkpoint_key_text(const struct checkpoint_key *k, char out[CHECKPOINT_KEY_MAX]);

struct checkpoint_signer;

/* A new key: its secret text, without a newline. */
int checkpoint_signer_make(const char *name, char out[CHECKPOINT_KEY_MAX], struct err *err);
struct checkpoint_signer *checkpoint_signer_parse(struct slice text, struct err *err);
void checkpoint_signer_free(struct checkpoint_signer *s); /* NULL is allowed */
const struct checkpoint_key *checkpoint_signer_key(const struct checkpoint_signer *s);

/* ---- notes ---- */

enum checkpoint_verdict {
	CHECKPOINT_GOOD,
	CHECKPOINT_MALFORMED,
	CHECKPOINT_UNSIGNED,  /* by any key that is known */
	CHECKPOINT_FORGED,    /* a known key's signature is wrong */
	CHECKPOINT_UNCHECKED, /* OpenSSL could not check it, for want of memory */
};

/* Append the note of this text, which ends in a newline. */
int checkpoint_sign(
    const struct checkpoint_signer *s, struct slice text, struct buf *out, struct err *err);
/* Append another signature to the note of this text. */
int checkpoint_cosign(
    const struct checkpoint_signer *s, struct slice text, struct buf *note, struct err *err);
/* What a note says, whoever signed it; false when it is none. */
bool checkpoint_note_text(struct slice note, struct slice *text);
/* The text of a note that one of the keys has signed, borrowed from it; err unless good. */
enum checkpoint_verdict checkpoint_open_note(struct slice note, const struct checkpoint_key *keys,
    size_t nkeys, struct slice *text, struct err *err);

/* ---- checkpoints ---- */

struct checkpoint {
	char origin[CHECKPOINT_ORIGIN_MAX];
	uint64_t size;
	struct merkle_hash root;
};

int checkpoint_write(const struct checkpoint_signer *s, const struct checkpoint *cp,
    struct buf *out, struct err *err);
/* Extension lines are passed over. */
enum checkpoint_verdict checkpoint_read(struct slice note, const struct checkpoint_key *keys,
    size_t nkeys, struct checkpoint *out, struct err *err);
/* The log of an origin "<name of one of the keys>/<log>"; NULL: it is another's. */
const char *checkpoint_log(const char *origin, const struct checkpoint_key *keys, size_t nkeys);
/* What a checkpoint says, whoever signed it; false when it is none. */
bool checkpoint_peek(struct slice note, struct checkpoint *out);

#endif
