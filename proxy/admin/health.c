#include "admin/health.h"

#include "keytrail/event.h"

bool
health_ready(const struct health_check *checks, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!checks[i].ok)
			return false;
	return true;
}

int
health_render_brief(const struct health_check *checks, size_t n, struct buf *out)
{
	return buf_append_slice(
	    out, health_ready(checks, n) ? SLICE("ready\n") : SLICE("not ready\n"));
}

static int
render_check(const struct health_check *c, struct buf *out)
{
	char name[64], detail[6 * sizeof(c->detail)];
	long nname = event_json_string(slice_of(c->name), name, sizeof(name));
	long ndetail = event_json_string(slice_of(c->detail), detail, sizeof(detail));

	return buf_printf(out, "{\"detail\":%.*s,\"name\":%.*s,\"ok\":%s}", (int)ndetail, detail,
	    (int)nname, name, c->ok ? "true" : "false");
}

int
health_render_verbose(const struct health_check *checks, size_t n, struct buf *out)
{
	int rc = buf_append_slice(out, SLICE("{\"checks\":["));

	for (size_t i = 0; i < n && rc == 0; i++) {
		if (i > 0)
			rc = buf_append_slice(out, SLICE(","));
		if (rc == 0)
			rc = render_check(&checks[i], out);
	}
	if (rc == 0)
		rc = buf_printf(
		    out, "],\"ready\":%s}\n", health_ready(checks, n) ? "true" : "false");
	return rc;
}
