#include "sink_http_secret.h"

#include "keytrail/base64.h"
#include "keytrail/file.h"

#include <string.h>

bool
http_fits_header(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
			return false;
	return true;
}

int
http_read_secret(const char *file, struct buf *out, struct err *err)
{
	if (file_load_secret(file, out, err) == -1)
		return -1;
	out->len = out->off + slice_without_eol(buf_slice(out)).n;
	if (buf_size(out) == 0 || !http_fits_header(buf_slice(out)))
		return err_set(err, "%s: wanted one line, which a header can hold", file);
	return 0;
}

static int
put_basic(const char *user, struct slice password, struct buf *out)
{
	struct buf both = BUF_INIT;
	int rc = -1;

	if (buf_printf(&both, "%s:", user) == 0 && buf_append_slice(&both, password) == 0 &&
	    buf_reserve(out, BASE64_SIZE(buf_size(&both))) == 0) {
		buf_commit(out, base64_encode(buf_slice(&both).p, buf_size(&both), buf_tail(out)));
		rc = 0;
	}
	buf_fini(&both);
	return rc;
}

int
http_add_credential(
    struct exchange *x, const struct http_credential *c, const char *url, struct err *err)
{
	struct buf secret = BUF_INIT, value = BUF_INIT;
	int rc = -1;

	if (c->file == NULL)
		return 0;
	if (http_read_secret(c->file, &secret, err) == -1)
		goto done;
	if (buf_printf(&value, "%s%s", c->scheme, c->scheme[0] != '\0' ? " " : "") == -1 ||
	    (c->user != NULL ? put_basic(c->user, buf_slice(&secret), &value)
			     : buf_append_slice(&value, buf_slice(&secret))) == -1)
		err_set(err, "%s: memory is short", url);
	else
		rc = exchange_header(x, c->name, buf_slice(&value), err);
done:
	buf_fini(&value);
	buf_fini(&secret);
	return rc;
}
