#include "config_table.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX   (1 << 20)
#define SECRET_MAX 4096

char *
config_resolve(struct arena *arena, const char *from, const char *file)
{
	const char *slash = strrchr(from, '/');
	size_t folder = slash == NULL || file[0] == '/' ? 0 : (size_t)(slash - from) + 1;
	size_t n = strlen(file);
	char *path = arena_alloc(arena, folder + n + 1);

	if (path != NULL) {
		memcpy(path, from, folder);
		memcpy(path + folder, file, n);
	}
	return path;
}

static ssize_t
read_all(int fd, char *out, size_t cap)
{
	size_t n = 0;

	while (n < cap) {
		ssize_t got = read(fd, out + n, cap - n);

		if (got == -1 && errno == EINTR)
			continue;
		if (got == -1)
			return -1;
		if (got == 0)
			break;
		n += (size_t)got;
	}
	return (ssize_t)n;
}

/* A regular file of at most max bytes, in the arena. */
static int
read_regular(const char *path, size_t max, struct arena *arena, char **out, size_t *n,
    struct stat *st, struct err *err)
{
	/* Not to hang on a FIFO that somebody put there. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t got = -1;

	if (fd == -1)
		return err_set_errno(err, "%s", path);
	if (fstat(fd, st) == -1)
		err_set_errno(err, "%s", path);
	else if (!S_ISREG(st->st_mode))
		err_set(err, "%s: not a regular file", path);
	else if ((uintmax_t)st->st_size > max)
		err_set(err, "%s: larger than %zu bytes", path, max);
	else if ((*out = arena_alloc(arena, (size_t)st->st_size + 1)) == NULL)
		err_set(err, "%s: memory is short", path);
	else if ((got = read_all(fd, *out, (size_t)st->st_size)) == -1)
		err_set_errno(err, "%s", path);
	close(fd);
	if (got == -1)
		return -1;
	*n = (size_t)got;
	return 0;
}

int
config_read_file(const char *path, struct arena *arena, struct source *out, struct err *err)
{
	struct stat st;
	char *text, *name;
	size_t n;

	if (read_regular(path, FILE_MAX, arena, &text, &n, &st, err) == -1)
		return -1;
	if ((name = arena_copy(arena, path, strlen(path))) == NULL)
		return err_set(err, "%s: memory is short", path);
	out->name = name;
	out->text = (struct slice){ text, n };
	return 0;
}

/* ---- secrets ---- */

static const char *
secret_path(const struct tree *at)
{
	const struct tree *file = tree_get(at, "file");

	if (file == NULL || file->type != TREE_STRING || file->text.n == 0 ||
	    at->first->next != NULL)
		return NULL;
	return file->text.p;
}

static size_t
without_newline(const char *p, size_t n)
{
	if (n > 0 && p[n - 1] == '\n')
		n--;
	if (n > 0 && p[n - 1] == '\r')
		n--;
	return n;
}

static int
hex_key(const char *p, size_t n, unsigned char key[SCRUB_HMAC_KEY_SIZE])
{
	if (n != 2 * SCRUB_HMAC_KEY_SIZE)
		return -1;
	for (size_t i = 0; i < SCRUB_HMAC_KEY_SIZE; i++) {
		char pair[3] = { p[2 * i], p[2 * i + 1], '\0' };

		if (strspn(pair, "0123456789abcdefABCDEF") != 2)
			return -1;
		key[i] = (unsigned char)strtoul(pair, NULL, 16);
	}
	return 0;
}

static int
base64_key(const char *p, size_t n, unsigned char key[SCRUB_HMAC_KEY_SIZE])
{
	unsigned char out[SCRUB_HMAC_KEY_SIZE + 1];

	/* 44 characters with one '=': EVP_DecodeBlock counts the padding as a byte. */
	if (n != 44 || p[43] != '=' || p[42] == '=' ||
	    EVP_DecodeBlock(out, (const unsigned char *)p, 44) != sizeof(out))
		return -1;
	memcpy(key, out, SCRUB_HMAC_KEY_SIZE);
	explicit_bzero(out, sizeof(out));
	return 0;
}

/* `raw` bytes are the file, n of them without its last newline. */
static int
decode_key(struct config_secret *s, size_t raw)
{
	unsigned char key[SCRUB_HMAC_KEY_SIZE];
	const char *text = (const char *)s->bytes;

	if (raw == SCRUB_HMAC_KEY_SIZE || s->n == SCRUB_HMAC_KEY_SIZE)
		memcpy(key, s->bytes, sizeof(key));
	else if (hex_key(text, s->n, key) == -1 && base64_key(text, s->n, key) == -1)
		return -1;
	memcpy(s->bytes, key, sizeof(key));
	s->n = sizeof(key);
	explicit_bzero(key, sizeof(key));
	return 0;
}

int
config_read_secret(const struct config_reader *r, const struct tree *at, const char *name,
    struct config_secret *out)
{
	const char *file = secret_path(at);
	struct err why;
	struct stat st;
	char *bytes;
	size_t n;

	if (file == NULL)
		return tree_error(at, r->err,
		    "\"%s\" is %s; wanted {\"file\": \"...\"}, a secret has "
		    "a file of its own",
		    name, tree_type_name(at->type));
	if ((out->path = config_resolve(r->arena, at->source->name, file)) == NULL)
		return tree_error(at, r->err, "memory is short");
	if (read_regular(out->path, SECRET_MAX, r->arena, &bytes, &n, &st, &why) == -1)
		return tree_error(at, r->err, "\"%s\": %s", name, why.msg);
	if ((st.st_mode & (S_IROTH | S_IWOTH)) != 0)
		return tree_error(at, r->err,
		    "\"%s\": %s is open to everybody (mode %04o); wanted "
		    "0640 or stricter",
		    name, out->path, (unsigned)st.st_mode & 07777);
	out->bytes = (unsigned char *)bytes;
	out->n = without_newline(bytes, n);
	if (out->n == 0)
		return tree_error(at, r->err, "\"%s\": %s is empty", name, out->path);
	if (strcmp(name, "audit.hmac_key") == 0 && decode_key(out, n) == -1)
		return tree_error(at, r->err,
		    "\"%s\": %s holds no key; wanted 32 bytes, raw, as 64 "
		    "hex digits or as base64",
		    name, out->path);
	bytes[out->n] = '\0';
	return 0;
}
