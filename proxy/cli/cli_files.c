#include "cli/cli_files.h"

#include "keytrail/file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define KEY_FILE_MAX 65536

static int
read_all(int fd, const char *path, size_t max, struct buf *out, struct err *err)
{
	ssize_t n;

	do {
		if (buf_reserve(out, 65536) == -1)
			return err_set_errno(err, "%s", path);
		n = read(fd, buf_tail(out), buf_room(out));
		if (n > 0)
			buf_commit(out, (size_t)n);
		if (buf_size(out) > max)
			return err_set(err, "%s: more than %zu bytes", path, max);
	} while (n > 0 || (n == -1 && errno == EINTR));
	return n == -1 ? err_set_errno(err, "%s: read", path) : 0;
}

int
cli_open(const char *path, struct err *err)
{
	int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);

	return fd == -1 ? err_set_errno(err, "%s: open", path) : fd;
}

int
cli_read_file(const char *path, size_t max, struct buf *out, struct err *err)
{
	int fd, rc;

	if ((fd = cli_open(path, err)) == -1)
		return -1;
	rc = read_all(fd, path, max, out, err);
	close(fd);
	return rc;
}

int
cli_write_new(const char *path, unsigned mode, struct slice text, struct err *err)
{
	int fd;

	if ((fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode)) == -1)
		return err_set_errno(err, "%s: create", path);
	if (file_write(fd, text.p, text.n, FILE_HERE) == -1 || fsync(fd) == -1) {
		err_set_errno(err, "%s: write", path);
		close(fd);
		unlink(path);
		return -1;
	}
	if (close(fd) == -1)
		return err_set_errno(err, "%s: write", path);
	return 0;
}

static int
add_key(struct slice text, struct checkpoint_key keys[CLI_KEYS_MAX], size_t *n, struct err *err)
{
	if (*n == CLI_KEYS_MAX)
		return err_set(err, "more than %d keys", CLI_KEYS_MAX);
	if (checkpoint_key_parse(text, &keys[*n], err) == -1)
		return -1;
	++*n;
	return 0;
}

static int
add_keys(struct slice rest, struct checkpoint_key keys[CLI_KEYS_MAX], size_t *n, struct err *err)
{
	size_t before = *n;

	while (rest.n > 0) {
		const char *nl = memchr(rest.p, '\n', rest.n);
		size_t used = nl != NULL ? (size_t)(nl - rest.p) : rest.n;

		if (used > 0 && add_key(slice_sub(rest, 0, used), keys, n, err) == -1)
			return -1;
		rest = slice_sub(rest, nl != NULL ? used + 1 : used, rest.n);
	}
	return *n > before ? 0 : err_set(err, "no verifier key");
}

int
cli_read_keys(const char *arg, struct checkpoint_key keys[CLI_KEYS_MAX], size_t *n, struct err *err)
{
	struct buf text = BUF_INIT;
	int rc;

	if (strchr(arg, '+') != NULL && access(arg, F_OK) == -1)
		return add_key(slice_of(arg), keys, n, err);
	rc = cli_read_file(arg, KEY_FILE_MAX, &text, err);
	if (rc == 0 && (rc = add_keys(buf_slice(&text), keys, n, err)) == -1)
		err_prefix(err, "%s", arg);
	buf_fini(&text);
	return rc;
}
