#include "cli/sandbox_internal.h"

#include "admin/answer.h"
#include "cli/harden.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

static const char *const names[] = {
	[SANDBOX_LANDLOCK] = "landlock",
	[SANDBOX_SECCOMP] = "seccomp",
	[SANDBOX_USER] = "user",
	[SANDBOX_NO_NEW_PRIVS] = "no_new_privs",
	[SANDBOX_DUMPABLE] = "not_dumpable",
	[SANDBOX_CORE] = "no_core",
};

/* ---- the own user ---- */

static int
check_readable(void *arg, const char *path, struct err *err)
{
	if (access(path, R_OK) == -1 && errno == EACCES)
		return err_set_errno(err, "\"user\" is \"%s\": %s", (const char *)arg, path);
	return 0;
}

/* The group that reads the segments is kept: it is theirs only if the process is in it. */
static gid_t
kept_group(const char *name, gid_t own)
{
	const struct group *g = name != NULL ? getgrnam(name) : NULL;

	return g != NULL ? g->gr_gid : own;
}

static int
become(const struct config *c, struct err *err)
{
	const struct passwd *pw = getpwnam(c->user);

	if (pw == NULL)
		return err_set(err, "\"user\": there is no user \"%s\"", c->user);
	if (geteuid() == pw->pw_uid)
		return 0;
	if (initgroups(c->user, kept_group(c->audit.group, pw->pw_gid)) == -1 ||
	    setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) == -1 ||
	    setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) == -1)
		return err_set_errno(err, "\"user\": become \"%s\"", c->user);
	return harden_again(err);
}

int
sandbox_become_user(const struct config *c, struct err *err)
{
	if (c->user == NULL)
		return 0;
	if (become(c, err) == -1)
		return -1;
	return sandbox_each_file(c, check_readable, c->user, err);
}

/* ---- what is in force ---- */

void
sandbox_set(struct sandbox *s, enum sandbox_part_id part, bool on, const char *detail)
{
	s->parts[part].on = on;
	snprintf(s->parts[part].detail, sizeof(s->parts[part].detail), "%s", detail);
}

static void
look_at_user(struct sandbox *s)
{
	char detail[32];

	snprintf(detail, sizeof(detail), "uid %lu", (unsigned long)geteuid());
	sandbox_set(s, SANDBOX_USER, geteuid() != 0, geteuid() != 0 ? detail : "it runs as root");
}

static void
look_at_core(struct sandbox *s)
{
	struct rlimit limit;
	bool on = getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_max == 0;

	sandbox_set(s, SANDBOX_CORE, on, on ? "RLIMIT_CORE 0" : "RLIMIT_CORE is not 0");
}

int
sandbox_look(struct sandbox *s, const struct config *c, struct err *err)
{
	bool undumpable = prctl(PR_GET_DUMPABLE) == 0;
	bool unprivileged = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
	char off[SANDBOX_TEXT_SIZE];

	s->required = c->sandbox == CONFIG_SANDBOX_REQUIRE;
	s->network = config_remote_sink(c) != NULL;
	sandbox_look_at_landlock(s, c);
	sandbox_look_at_seccomp(s, c);
	look_at_user(s);
	look_at_core(s);
	sandbox_set(s, SANDBOX_DUMPABLE, undumpable, undumpable ? "" : "it is");
	sandbox_set(s, SANDBOX_NO_NEW_PRIVS, unprivileged, unprivileged ? "" : "it may gain some");
	sandbox_text(s, false, off);
	if (!s->required || off[0] == '\0')
		return 0;
	return err_set(err, "\"sandbox\" is \"require\", and these are not in force: %s", off);
}

void
sandbox_fini(struct sandbox *s)
{
	sandbox_free_filters(s->filters);
	s->filters = NULL;
}

static void
look_at_threads(struct sandbox *s)
{
	if (sandbox_filters_failed(s->filters))
		sandbox_set(s, SANDBOX_SECCOMP, false, "a thread could not take its filter");
}

void
sandbox_text(struct sandbox *s, bool on, char out[SANDBOX_TEXT_SIZE])
{
	size_t n = 0;

	look_at_threads(s);
	out[0] = '\0';
	for (int i = 0; i < SANDBOX_PARTS && n < SANDBOX_TEXT_SIZE; i++)
		if (s->parts[i].on == on)
			n += (size_t)snprintf(out + n, SANDBOX_TEXT_SIZE - n, "%s%s%s%s%s",
			    n == 0 ? "" : (on ? " " : ", "), names[i], on ? "" : " (",
			    on ? "" : s->parts[i].detail, on ? "" : ")");
}

int
sandbox_put(struct sandbox *s, const struct config *c, struct buf *out)
{
	look_at_threads(s);
	if (buf_printf(out, "{\"required\":%s,\"parts\":[",
		c->sandbox == CONFIG_SANDBOX_REQUIRE ? "true" : "false") == -1)
		return -1;
	for (int i = 0; i < SANDBOX_PARTS; i++)
		if (buf_printf(out, "%s{\"name\":\"%s\",\"on\":%s,\"detail\":", i > 0 ? "," : "",
			names[i], s->parts[i].on ? "true" : "false") == -1 ||
		    answer_put_string(slice_of(s->parts[i].detail), out) == -1 ||
		    buf_append(out, "}", 1) == -1)
			return -1;
	return buf_printf(out, "]}");
}
