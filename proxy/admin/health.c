#include "admin/health.h"

#include "keytrail/event.h"

#include <inttypes.h>

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
health_render_members(const struct health_check *checks, size_t n, struct buf *out)
{
	int rc = buf_append_slice(out, SLICE("\"checks\":["));

	for (size_t i = 0; i < n && rc == 0; i++) {
		if (i > 0)
			rc = buf_append_slice(out, SLICE(","));
		if (rc == 0)
			rc = render_check(&checks[i], out);
	}
	if (rc == 0)
		rc = buf_printf(out, "],\"ready\":%s", health_ready(checks, n) ? "true" : "false");
	return rc;
}

/* ---- in a sentence ---- */

#define BEHIND_S 10    /* a sink may be */
#define NEAR_S	 86400 /* that the trail is full within is told */

static int
put_time(double s, struct buf *out)
{
	if (s < 120)
		return buf_printf(out, "%.0f s", s);
	if (s < 7200)
		return buf_printf(out, "%.0f min", s / 60);
	return s < 172800 ? buf_printf(out, "%.0f h", s / 3600)
			  : buf_printf(out, "%.0f days", s / 86400);
}

static bool
is_said(const char *text)
{
	return text != NULL && text[0] != '\0';
}

static int
put_calls(const struct health_facts *f, struct buf *out)
{
	if (!f->accepting)
		return buf_printf(out, "No calls are accepted");
	if (is_said(f->degraded) && is_said(f->trail))
		return buf_printf(out, "Calls are served without their record until %s: %s",
		    f->degraded, f->trail);
	if (is_said(f->degraded))
		return buf_printf(
		    out, "Calls are served without waiting for their record until %s", f->degraded);
	if (is_said(f->trail))
		return buf_printf(out, "Calls that need their record are refused: %s", f->trail);
	if (f->lost > 0)
		return buf_printf(out, "Calls are recorded");
	return buf_printf(out, "Every call is recorded");
}

static int
put_sink(const struct health_sink *s, struct buf *out)
{
	if (is_said(s->error))
		return buf_printf(out, "; sink %s is down: %s", s->name, s->error);
	if (s->behind_s < BEHIND_S)
		return 0;
	return buf_printf(out, "; sink %s is ", s->name) == -1 || put_time(s->behind_s, out) == -1
		   ? -1
		   : buf_printf(out, " behind");
}

int
health_summary(const struct health_facts *f, struct buf *out)
{
	if (put_calls(f, out) == -1)
		return -1;
	if (f->lost > 0 && buf_printf(out, "; %" PRIu64 " %s lost", f->lost,
			       f->lost == 1 ? "event was" : "events were") == -1)
		return -1;
	if (is_said(f->unsigned_) && buf_printf(out, "; nothing is signed: %s", f->unsigned_) == -1)
		return -1;
	for (size_t i = 0; i < f->nsinks; i++)
		if (put_sink(&f->sinks[i], out) == -1)
			return -1;
	if (f->full_s <= NEAR_S &&
	    (buf_printf(out, "; the trail is full in ") == -1 || put_time(f->full_s, out) == -1))
		return -1;
	if (is_said(f->certificate) &&
	    buf_printf(out, "; a certificate is %s", f->certificate) == -1)
		return -1;
	if (is_said(f->holds) &&
	    buf_printf(out, "; nothing is removed from the trail: %s", f->holds) == -1)
		return -1;
	return buf_append(out, ".", 1);
}
