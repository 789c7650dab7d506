/* Files that somebody deletes, renames or replaces under the writer; segments: trail_append.c and
 * trail_gaps.c. */
#include "trail_internal.h"

#include <errno.h>
#include <sys/stat.h>

static bool
state_is_there(struct trail *t)
{
	return trail_state_is_named(t->state, t->dirfd);
}

static int
mend_state(struct trail *t, struct err *err)
{
	int rc;

	pthread_mutex_lock(&t->page_lock);
	t->page = trail_info(t);
	rc = trail_state_replace(t->dirfd, &t->page, &t->state, err);
	pthread_mutex_unlock(&t->page_lock);
	return rc;
}

/* A path that cannot be looked at tells nothing. */
static bool
directory_is_there(struct trail *t)
{
	struct stat own, named;

	if (fstat(t->dirfd, &own) == -1)
		return true;
	if (stat(t->path, &named) == -1)
		return errno != ENOENT && errno != ENOTDIR;
	return named.st_ino == own.st_ino && named.st_dev == own.st_dev;
}

int
trail_check_directory(const struct trail *t, struct err *err)
{
	struct stat st;

	if (fstat(t->dirfd, &st) == 0 && st.st_nlink == 0)
		return err_set(err,
		    "%s: the trail's directory was deleted: nothing can be written before a "
		    "restart",
		    t->path);
	return 0;
}

size_t
trail_find_harm(struct trail *t, struct trail_harm out[TRAIL_HARM_MAX])
{
	static const struct {
		const char *file;
		bool (*is_there)(struct trail *t);
		int (*mend)(struct trail *t, struct err *err);
	} files[TRAIL_HARM_MAX] = {
		{ "log", trail_log_is_there, trail_write_log },
		{ "state", state_is_there, mend_state },
		{ "holds", trail_holds_are_there, trail_write_holds },
		{ ".", directory_is_there, NULL },
	};
	struct err err;
	size_t n = 0;

	for (size_t i = 0; i < TRAIL_HARM_MAX; i++) {
		unsigned bit = 1U << i;
		bool there = files[i].is_there(t);
		bool mended = !there && files[i].mend != NULL && files[i].mend(t, &err) == 0;

		if (!there && (t->harmed & bit) == 0)
			out[n++] = (struct trail_harm){ files[i].file, mended };
		t->harmed = there || mended ? t->harmed & ~bit : t->harmed | bit;
	}
	return n;
}
