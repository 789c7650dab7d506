#include "config_table.h"

#include "keytrail/file.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

#define FILE_MAX (1 << 20)

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

int
config_read_file(const char *path, struct arena *arena, struct source *out, struct err *err)
{
	char *name = arena_copy(arena, path, strlen(path)), *text = NULL;
	struct stat st;
	ssize_t n = -1;
	int fd = file_open_regular(path, FILE_MAX, &st, err);

	if (fd == -1)
		return -1;
	if (name == NULL || (text = arena_alloc(arena, (size_t)st.st_size + 1)) == NULL)
		err_set(err, "%s: memory is short", path);
	else if ((n = file_read(fd, text, (size_t)st.st_size, 0)) == -1)
		err_set_errno(err, "%s", path);
	close(fd);
	if (n == -1)
		return -1;
	*out = (struct source){ .name = name, .text = { text, (size_t)n } };
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

static int
take_secret(const struct config_reader *r, const struct tree *at, const char *name,
    struct slice text, struct config_secret *out)
{
	char *bytes = arena_alloc(r->arena, text.n + 1);

	if (bytes == NULL)
		return tree_error(at, r->err, "memory is short");
	slice_to_cstr(text, bytes, text.n + 1);
	out->bytes = (unsigned char *)bytes;
	out->n = slice_without_eol(text).n;
	if (out->n == 0)
		return tree_error(at, r->err, "\"%s\": %s is empty", name, out->path);
	if (strcmp(name, "audit.hmac_key") == 0 && decode_key(out, text.n) == -1)
		return tree_error(at, r->err,
		    "\"%s\": %s holds no key; wanted 32 bytes, raw, as 64 "
		    "hex digits or as base64",
		    name, out->path);
	bytes[out->n] = '\0';
	return 0;
}

int
config_read_secret(const struct config_reader *r, const struct tree *at, const char *name,
    struct config_secret *out)
{
	const char *file = secret_path(at);
	struct buf text = BUF_INIT;
	struct err why;
	int rc;

	if (file == NULL)
		return tree_error(at, r->err,
		    "\"%s\" is %s; wanted {\"file\": \"...\"}, a secret has "
		    "a file of its own",
		    name, tree_type_name(at->type));
	if ((out->path = config_resolve(r->arena, at->source->name, file)) == NULL)
		return tree_error(at, r->err, "memory is short");
	rc = file_load_secret(out->path, &text, &why) == -1
		 ? tree_error(at, r->err, "\"%s\": %s", name, why.msg)
		 : take_secret(r, at, name, buf_slice(&text), out);
	buf_fini(&text);
	return rc;
}
