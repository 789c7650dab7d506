#include "keytrail/rotation.h"

#include "keytrail/file.h"

#include <stdio.h>

#define TITLE "keytrail.key"

int
rotation_write(const struct checkpoint_signer *old, const struct checkpoint_signer *new,
    const char *origin, struct buf *out, struct err *err)
{
	char before[CHECKPOINT_KEY_MAX], after[CHECKPOINT_KEY_MAX];
	char text[CHECKPOINT_ORIGIN_MAX + 2 * CHECKPOINT_KEY_MAX + 32];
	const struct checkpoint_key *from = checkpoint_signer_key(old);
	const struct checkpoint_key *to = checkpoint_signer_key(new);
	int n;

	if (strcmp(from->name, to->name) != 0)
		return err_set(err,
		    "the old key is called \"%s\", the new one \"%s\"; wanted one name", from->name,
		    to->name);
	checkpoint_key_text(from, before);
	checkpoint_key_text(to, after);
	if (strcmp(before, after) == 0)
		return err_set(err, "the old key and the new one are the same");
	n = snprintf(text, sizeof(text), TITLE "\n%s\n%s\n%s\n", origin, before, after);
	if (checkpoint_sign(old, (struct slice){ text, (size_t)n }, out, err) == -1)
		return -1;
	return checkpoint_cosign(new, (struct slice){ text, (size_t)n }, out, err);
}

static bool
next_line(struct slice *rest, struct slice *line)
{
	const char *nl = rest->n > 0 ? memchr(rest->p, '\n', rest->n) : NULL;

	if (nl == NULL)
		return false;
	*line = slice_sub(*rest, 0, (size_t)(nl - rest->p));
	*rest = slice_sub(*rest, line->n + 1, rest->n);
	return line->n > 0;
}

static bool
parse(struct slice text, struct rotation *out, struct err *err)
{
	struct slice title, origin, old, new;

	if (!next_line(&text, &title) || !slice_equal(title, SLICE(TITLE)) ||
	    !next_line(&text, &origin) || origin.n >= sizeof(out->origin) ||
	    !next_line(&text, &old) || !next_line(&text, &new) || text.n > 0 ||
	    checkpoint_key_parse(old, &out->old, err) == -1 ||
	    checkpoint_key_parse(new, &out->new, err) == -1)
		return false;
	memcpy(out->origin, origin.p, origin.n);
	out->origin[origin.n] = '\0';
	return strcmp(out->old.name, out->new.name) == 0;
}

enum checkpoint_verdict
rotation_read(struct slice note, struct rotation *out, struct err *err)
{
	enum checkpoint_verdict v;
	struct slice text;

	if (!checkpoint_note_text(note, &text) || !parse(text, out, err)) {
		err_set(err, "not a statement by which a key hands over");
		return CHECKPOINT_MALFORMED;
	}
	if ((v = checkpoint_open_note(note, &out->old, 1, &text, err)) != CHECKPOINT_GOOD)
		err_prefix(err, "the old key");
	else if ((v = checkpoint_open_note(note, &out->new, 1, &text, err)) != CHECKPOINT_GOOD)
		err_prefix(err, "the new key");
	return v;
}

bool
rotation_leads_to(const struct rotation *r, const struct checkpoint_key *k)
{
	return checkpoint_key_equal(&r->new, k);
}

int
rotation_read_file(int dirfd, struct buf *out, struct err *err)
{
	return file_load(dirfd, "rotation", CHECKPOINT_NOTE_MAX + 1, out, err);
}
