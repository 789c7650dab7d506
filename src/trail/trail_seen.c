/* The sealed segments that were looked at: with them nothing is to happen but that they expire. */
#include "trail_internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

struct trail_file {
	dev_t dev;
	ino_t ino;
	off_t size;
};

static bool
look_at(const struct trail *t, uint64_t first, struct trail_file *out)
{
	struct stat st;

	if (fstatat(t->dirfd, trail_segment_name(first, "").s, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return false;
	*out = (struct trail_file){ st.st_dev, st.st_ino, st.st_size };
	return true;
}

static bool
is_same(const struct trail_file *a, const struct trail_file *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size;
}

void
trail_seen_fini(struct trail_seen *s)
{
	trail_list_free(&s->names);
	free(s->files);
	s->files = NULL;
}

/* The open one grows, and has a check of its own. */
int
trail_seen_set(struct trail *t, const struct trail_list *l, struct err *err)
{
	struct trail_seen new = { { calloc(l->n + 1, sizeof(*l->first)), 0 },
		calloc(l->n + 1, sizeof(*new.files)) };

	if (new.names.first == NULL || new.files == NULL) {
		trail_seen_fini(&new);
		return err_set_errno(err, "%s", t->path);
	}
	for (size_t i = 0; i < l->n; i++)
		if (l->first[i] != t->open.first &&
		    look_at(t, l->first[i], &new.files[new.names.n]))
			new.names.first[new.names.n++] = l->first[i];
	trail_seen_fini(&t->seen);
	t->seen = new;
	return 0;
}

static void
forget(struct trail_seen *s, size_t i)
{
	size_t rest = --s->names.n - i;

	memmove(s->names.first + i, s->names.first + i + 1, rest * sizeof(*s->names.first));
	memmove(s->files + i, s->files + i + 1, rest * sizeof(*s->files));
}

bool
trail_find_changed(struct trail *t, uint64_t *segment)
{
	struct trail_seen *s = &t->seen;
	struct trail_file now;

	for (size_t i = 0; i < s->names.n; i++)
		if (look_at(t, s->names.first[i], &now) && !is_same(&now, &s->files[i])) {
			*segment = s->names.first[i];
			forget(s, i);
			return true;
		}
	return false;
}
