/* The auditor's way through the segments. */
#include "trail_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct trail_walk {
	int dirfd, fd;
	struct trail_state_info state;
	struct trail_list list;
	size_t next;  /* segment to open, in the list */
	uint64_t end; /* number at which the open one ends */
	struct trail_cursor c;
};

int
trail_walk_open(const char *dir, struct trail_walk **out, struct err *err)
{
	struct trail_walk *w;

	if ((w = calloc(1, sizeof(*w))) == NULL)
		return err_set_errno(err, "%s", dir);
	w->fd = -1;
	if ((w->dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) == -1) {
		err_set_errno(err, "%s: open", dir);
		goto fail;
	}
	if (trail_state_load(w->dirfd, &w->state, err) == -1 ||
	    trail_list_segments(w->dirfd, &w->list, err) == -1 ||
	    trail_cursor_init(&w->c, err) == -1) {
		err_prefix(err, "%s", dir);
		goto fail;
	}
	if (!w->state.valid) {
		err_set(err, "%s: the file \"state\" is missing or damaged", dir);
		goto fail;
	}
	*out = w;
	return 0;
fail:
	trail_walk_close(w);
	return -1;
}

void
trail_walk_close(struct trail_walk *w)
{
	if (w == NULL)
		return;
	trail_cursor_fini(&w->c);
	trail_list_free(&w->list);
	if (w->fd != -1)
		close(w->fd);
	if (w->dirfd != -1)
		close(w->dirfd);
	free(w);
}

uint64_t
trail_walk_durable(const struct trail_walk *w)
{
	return w->state.mark.seq;
}

const struct trail_log *
trail_walk_log(const struct trail_walk *w)
{
	return &w->state.log;
}

bool
trail_walk_clean(const struct trail_walk *w)
{
	return w->state.clean;
}

/* 1: one is open; 0: none is left. */
static int
open_next(struct trail_walk *w, struct err *err)
{
	const struct trail_mark *mark = &w->state.mark;
	struct stat st;
	uint64_t first;

	while (w->next < w->list.n && (first = w->list.first[w->next]) <= mark->segment) {
		struct trail_name name = trail_segment_name(first, "");

		w->next++;
		w->fd = openat(w->dirfd, name.s, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (w->fd == -1 && errno == ENOENT) /* expired under us */
			continue;
		if (w->fd == -1 || fstat(w->fd, &st) == -1)
			return err_set_errno(err, "read %s", name.s);
		w->end = first < mark->segment
			     ? trail_own_end(w->dirfd, &w->state.log, &w->list, first)
			     : TRAIL_SEQ_END;
		trail_cursor_set(&w->c, w->fd, first, 0,
		    first == mark->segment ? mark->offset : (uint64_t)st.st_size);
		return 1;
	}
	return 0;
}

int
trail_walk_next(struct trail_walk *w, struct trail_walk_item *out, struct err *err)
{
	struct trail_piece p;
	int rc;

	for (;;) {
		if (w->fd == -1 && (rc = open_next(w, err)) != 1)
			return rc;
		if ((rc = trail_cursor_next(&w->c, &p, err)) == -1)
			return -1;
		if (rc == 1)
			break;
		close(w->fd);
		w->fd = -1;
	}
	out->segment = w->list.first[w->next - 1];
	out->at = p.at;
	out->line = p.bytes;
	if (!p.whole || trail_parse_line(p.bytes, &out->member) == -1)
		out->kind = TRAIL_WALK_DAMAGE;
	else if (!trail_owns(&w->state.log, &out->member))
		out->kind = TRAIL_WALK_FOREIGN;
	else if (out->member.seq >= w->end)
		out->kind = TRAIL_WALK_LEFTOVER;
	else
		out->kind = TRAIL_WALK_LINE;
	return 1;
}
