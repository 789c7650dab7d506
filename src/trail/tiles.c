#include "keytrail/tiles.h"

#include "keytrail/file.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPARE_NAME "tile/new"

void
tiles_path(unsigned level, uint64_t index, unsigned width, char out[TILES_PATH_MAX])
{
	uint64_t groups[7];
	size_t n = 0, used;

	assert(width >= 1 && width <= MERKLE_TILE_WIDTH);
	do
		groups[n++] = index % 1000;
	while ((index /= 1000) > 0);
	used = (size_t)snprintf(out, TILES_PATH_MAX, "tile/%u", level);
	while (n-- > 0)
		used += (size_t)snprintf(out + used, TILES_PATH_MAX - used, "/%s%03u",
		    n > 0 ? "x" : "", (unsigned)groups[n]);
	if (width < MERKLE_TILE_WIDTH)
		snprintf(out + used, TILES_PATH_MAX - used, ".p/%u", width);
}

/* -1 and errno: ENOENT also for a file that is shorter. */
static int
read_hashes(int dirfd, const char *path, unsigned width, struct merkle_hash *out)
{
	size_t want = width * sizeof(*out);
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t have = fd != -1 ? file_read(fd, out, want, 0) : -1;
	int why = have == -1 ? errno : ENOENT;

	if (fd != -1)
		close(fd);
	errno = why;
	return have == (ssize_t)want ? 0 : -1;
}

int
tiles_read(void *arg, unsigned level, uint64_t index, unsigned width, struct merkle_hash *out,
    struct err *err)
{
	const struct tiles *t = arg;
	char path[TILES_PATH_MAX], full[TILES_PATH_MAX];

	tiles_path(level, index, width, path);
	if (read_hashes(t->dirfd, path, width, out) == 0)
		return 0;
	if (errno != ENOENT)
		return err_set_errno(err, "read %s", path);
	tiles_path(level, index, MERKLE_TILE_WIDTH, full);
	if (width < MERKLE_TILE_WIDTH && read_hashes(t->dirfd, full, width, out) == 0)
		return 0;
	return err_set(err, "%s: no such tile", path);
}

static int
make_folders(int dirfd, const char *path)
{
	char part[TILES_PATH_MAX];

	for (const char *at = strchr(path, '/'); at != NULL; at = strchr(at + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(at - path), path);
		if (mkdirat(dirfd, part, 0750) == -1 && errno != EEXIST)
			return -1;
	}
	return 0;
}

static void
remove_partial(int dirfd, unsigned level, uint64_t index)
{
	char folder[TILES_PATH_MAX];
	const struct dirent *file;
	DIR *dir;
	int fd;

	tiles_path(level, index, 1, folder);
	*strrchr(folder, '/') = '\0';
	if (unlinkat(dirfd, folder, AT_REMOVEDIR) == 0 || errno == ENOENT ||
	    (fd = openat(dirfd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)) == -1)
		return;
	if ((dir = fdopendir(fd)) == NULL) {
		close(fd);
		return;
	}
	while ((file = readdir(dir)) != NULL)
		unlinkat(fd, file->d_name, 0);
	closedir(dir);
	unlinkat(dirfd, folder, AT_REMOVEDIR);
}

static int
write_file(int dirfd, const char *path, int flags, const struct merkle_hash *hashes, unsigned width)
{
	size_t n = width * sizeof(*hashes);
	int fd, rc;

	if ((fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0640)) ==
	    -1)
		return -1;
	rc = file_write(fd, hashes, n, 0);
	return close(fd) == 0 ? rc : -1;
}

static int
write_new(int dirfd, const char *path, const struct merkle_hash *hashes, unsigned width)
{
	int rc = write_file(dirfd, path, O_EXCL, hashes, width);

	if (rc == -1 && errno == ENOENT && make_folders(dirfd, path) == 0)
		rc = write_file(dirfd, path, O_EXCL, hashes, width);
	return rc;
}

int
tiles_write(const struct tiles *t, unsigned level, uint64_t index, unsigned width,
    const struct merkle_hash *hashes, struct err *err)
{
	char path[TILES_PATH_MAX];

	tiles_path(level, index, width, path);
	if (write_new(t->dirfd, path, hashes, width) == -1 &&
	    (errno != EEXIST || write_file(t->dirfd, SPARE_NAME, O_TRUNC, hashes, width) == -1 ||
		renameat(t->dirfd, SPARE_NAME, t->dirfd, path) == -1))
		return err_set_errno(err, "write %s", path);
	if (width == MERKLE_TILE_WIDTH)
		remove_partial(t->dirfd, level, index);
	return 0;
}

static int
sync_path(int dirfd, const char *path, struct err *err)
{
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int rc = fd == -1 ? -1 : fsync(fd);

	if (rc == -1)
		err_set_errno(err, "sync %s", path);
	if (fd != -1)
		close(fd);
	return rc;
}

/* The folder, and those above it. */
static int
sync_folders(int dirfd, char *path, struct err *err)
{
	char *slash;

	while (sync_path(dirfd, path, err) == 0) {
		if ((slash = strrchr(path, '/')) == NULL)
			return sync_path(dirfd, ".", err);
		*slash = '\0';
	}
	return -1;
}

int
tiles_sync(const struct tiles *t, uint64_t since, uint64_t size, struct err *err)
{
	uint64_t end = size / MERKLE_TILE_WIDTH;
	char path[TILES_PATH_MAX];

	for (uint64_t i = since / MERKLE_TILE_WIDTH; i < end; i++) {
		tiles_path(0, i, MERKLE_TILE_WIDTH, path);
		if (sync_path(t->dirfd, path, err) == -1)
			return -1;
		if ((i + 1) % 1000 != 0 && i + 1 != end) /* the next one is in the same folder */
			continue;
		*strrchr(path, '/') = '\0';
		if (sync_folders(t->dirfd, path, err) == -1)
			return -1;
	}
	return 0;
}

/* ---- a tree that grows ---- */

static unsigned
width_at(uint64_t size, unsigned level)
{
	return (unsigned)(size >> 8 * level & (MERKLE_TILE_WIDTH - 1));
}

/* A tile is full. */
static int
flush(struct tiles_tree *t, const struct tiles *files, enum tiles_policy policy, unsigned level,
    uint64_t index, struct err *err)
{
	struct merkle_hash there[MERKLE_TILE_WIDTH];
	struct tiles reader = *files;

	if (policy == TILES_NONE || (policy == TILES_REPAIR && level == 0))
		return 0;
	if (policy == TILES_REPAIR &&
	    tiles_read(&reader, level, index, MERKLE_TILE_WIDTH, there, err) == 0 &&
	    memcmp(there, t->row[level], sizeof(there)) == 0)
		return 0;
	return tiles_write(files, level, index, MERKLE_TILE_WIDTH, t->row[level], err);
}

int
tiles_tree_append(struct tiles_tree *t, const struct tiles *files, enum tiles_policy policy,
    const struct merkle_hash *leaf, struct err *err)
{
	struct merkle_hash h = *leaf;

	for (unsigned level = 0; level < MERKLE_LEVELS; level++) {
		uint64_t count = (t->size >> 8 * level) + 1; /* hashes of this level now */

		t->row[level][(count - 1) % MERKLE_TILE_WIDTH] = h;
		if (count % MERKLE_TILE_WIDTH != 0)
			break;
		if (flush(t, files, policy, level, count / MERKLE_TILE_WIDTH - 1, err) == -1)
			return -1;
		merkle_root_of(t->row[level], MERKLE_TILE_WIDTH, &h);
	}
	t->size++;
	return 0;
}

void
tiles_tree_root(const struct tiles_tree *t, struct merkle_hash *out)
{
	struct merkle_tree edge = MERKLE_TREE_INIT;

	edge.size = t->size;
	for (unsigned level = 0; level < MERKLE_LEVELS; level++) {
		unsigned width = width_at(t->size, level), at = 0;

		for (unsigned bit = 8; bit-- > 0;)
			if ((width >> bit & 1) != 0) {
				merkle_root_of(
				    &t->row[level][at], 1U << bit, &edge.edge[8 * level + bit]);
				at += 1U << bit;
			}
	}
	merkle_root(&edge, out);
}

int
tiles_tree_load(struct tiles_tree *t, const struct tiles *files, uint64_t size, struct err *err)
{
	struct tiles reader = *files;

	for (unsigned level = 0; level < MERKLE_LEVELS; level++) {
		unsigned width = width_at(size, level);

		if (width > 0 && tiles_read(&reader, level, size >> 8 * level >> 8, width,
				     t->row[level], err) == -1)
			return -1;
	}
	t->size = size;
	return 0;
}

int
tiles_tree_write_edge(
    const struct tiles_tree *t, const struct tiles *files, uint64_t since, struct err *err)
{
	for (unsigned level = 0; level < MERKLE_LEVELS; level++) {
		unsigned width = width_at(t->size, level);

		if (width > 0 && (since == 0 || since >> 8 * level != t->size >> 8 * level) &&
		    tiles_write(
			files, level, t->size >> 8 * level >> 8, width, t->row[level], err) == -1)
			return -1;
	}
	return 0;
}
