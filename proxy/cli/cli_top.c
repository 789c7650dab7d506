/* keytrail top: a running sidecar on a terminal, renewed each second. */
#include "cli/cli.h"
#include "cli/cli_call.h"
#include "cli/cli_sample.h"
#include "cli/cli_term.h"
#include "keytrail/clock.h"
#include "keytrail/config.h"

#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#define PERIOD_NS  CLOCK_NS_PER_S
#define PATIENCE_S 3
#define LINE_MAX   512

struct top {
	struct cli_socket at;
	char *path; /* of the socket, where a routes file named it */
	bool once, colour;
	char sort; /* the key that was hit */
	struct sample *now, *before;
	int64_t now_ns, before_ns;
	json_t *status;	 /* or NULL: there was no answer */
	struct err why;	 /* there was none */
	int rows, width; /* left of the screen, and its width; 0: no limit */
};

/* ---- asking ---- */

static json_t *
ask_status(struct top *t)
{
	struct buf answer = BUF_INIT;
	json_t *status = NULL;

	if (cli_call(&t->at, "/status", NULL, &answer, &t->why) == 0 &&
	    (status = json_loadb(buf_slice(&answer).p, buf_size(&answer), 0, NULL)) == NULL)
		err_set(&t->why, "what answers is no sidecar");
	buf_fini(&answer);
	return status;
}

static int
ask_metrics(struct top *t)
{
	struct buf answer = BUF_INIT;
	struct sample *oldest = t->before;
	int rc = cli_call(&t->at, "/metrics", NULL, &answer, &t->why);

	if (rc == 0) {
		t->before = t->now;
		t->before_ns = t->now_ns;
		t->now = oldest;
		t->now_ns = clock_mono_ns();
		sample_read(t->now, buf_slice(&answer));
	}
	buf_fini(&answer);
	return rc;
}

static int
ask(struct top *t)
{
	json_decref(t->status);
	if ((t->status = ask_status(t)) == NULL)
		return -1;
	if (ask_metrics(t) == 0)
		return 0;
	json_decref(t->status);
	t->status = NULL;
	return -1;
}

/* ---- lines ---- */

static void put_line(struct top *t, enum cli_style style, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void
put_line(struct top *t, enum cli_style style, const char *fmt, ...)
{
	char text[LINE_MAX];
	va_list ap;

	if (!t->once && t->rows-- <= 0)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cli_term_put(text, 0, t->width, t->colour ? style : CLI_PLAIN);
	fputs(t->once ? "\n" : "\x1b[K\n", stdout);
}

static const json_t *
at(const json_t *object, const char *key)
{
	return json_object_get(object, key);
}

static const char *
text(const json_t *object, const char *key)
{
	const char *s = json_string_value(at(object, key));

	return s != NULL ? s : "";
}

static double
number(const json_t *object, const char *key)
{
	return json_number_value(at(object, key));
}

/* "1.5 GiB", "3 h", "0.30 ms": n in the largest unit of which it has one. */
struct unit {
	double size;
	const char *name;
};

static const struct unit bytes[] = { { 1099511627776.0, "TiB" }, { 1073741824.0, "GiB" },
	{ 1048576.0, "MiB" }, { 1024.0, "KiB" }, { 0, "B" } };
static const struct unit seconds[] = { { 86400.0, "d" }, { 3600.0, "h" }, { 60.0, "min" },
	{ 1.0, "s" }, { 0.001, "ms" }, { 0.000001, "us" }, { 0, "s" } };

#define AMOUNT_SIZE 24

static const char *
amount(double n, const struct unit *u, char out[AMOUNT_SIZE])
{
	double shown;

	while (n < u->size)
		u++;
	shown = n / (u->size > 0 ? u->size : 1);
	snprintf(out, AMOUNT_SIZE, "%.*f %s", shown < 10 && shown != floor(shown) ? 1 : 0, shown,
	    u->name);
	return out;
}

/* ---- the head ---- */

static void
put_health(struct top *t)
{
	char up[AMOUNT_SIZE];
	const char *summary = text(t->status, "summary");
	bool ready = json_is_true(at(t->status, "ready"));
	bool well = ready && strcmp(summary, "Every call is recorded.") == 0;

	put_line(t, CLI_BOLD, "keytrail %s  up %s  %s", text(t->status, "version"),
	    amount(number(t->status, "uptimeSeconds"), seconds, up), text(t->status, "configPath"));
	put_line(t,
	    well    ? CLI_GOOD
	    : ready ? CLI_WARN
		    : CLI_BAD,
	    "%s",
	    summary[0] != '\0' ? summary
	    : ready	       ? "ready"
			       : "not ready");
}

static void
put_trail(struct top *t)
{
	const json_t *trail = at(t->status, "trail"), *full = at(trail, "secondsToFull");
	char held[AMOUNT_SIZE], room[AMOUNT_SIZE], left[AMOUNT_SIZE];

	put_line(t, CLI_PLAIN, "trail    event %.0f; %s, segments %.0f, free %s%s%s; lost %.0f",
	    number(trail, "durable"), amount(number(trail, "bytes"), bytes, held),
	    number(trail, "segments"), amount(number(trail, "freeBytes"), bytes, room),
	    json_is_number(full) ? ", full in " : "",
	    json_is_number(full) ? amount(json_number_value(full), seconds, left) : "",
	    t->now->lost);
}

/* A second has passed since, or it is all since the start. */
static double
rate(const struct top *t, double now, double before)
{
	double s = (double)(t->now_ns - t->before_ns) / (double)CLOCK_NS_PER_S;

	return t->before_ns != 0 && s > 0 && now >= before ? (now - before) / s : 0;
}

static double
call_rate(const struct top *t, const struct sample_action *a)
{
	return rate(t, a->calls, sample_before(t->before, a->name).calls);
}

static void
put_traffic(struct top *t)
{
	double calls = 0, failed = 0, now = 0;

	for (size_t i = 0; i < t->now->nactions; i++) {
		calls += t->now->actions[i].calls;
		failed += t->now->actions[i].failed + t->now->actions[i].unknown;
		now += call_rate(t, &t->now->actions[i]);
	}
	put_line(t, CLI_PLAIN,
	    "calls    %.1f/s; all %.0f, not well %.0f, in flight %.0f; clients %.0f, connections "
	    "to "
	    "the service %.0f",
	    now, calls, failed, number(at(t->status, "requests"), "inFlight"), t->now->clients,
	    number(at(t->status, "upstream"), "open"));
}

static const char *
quantile(const struct sample_latency *now, const struct sample_latency *before, double q,
    char out[AMOUNT_SIZE])
{
	double s = sample_quantile(now, before, q);

	if (s < 0)
		return "-";
	if (isinf(s))
		return "more";
	return amount(s, seconds, out);
}

static void
put_latency(struct top *t)
{
	const struct sample *n = t->now, *b = t->before;
	char a[AMOUNT_SIZE], c[AMOUNT_SIZE], d[AMOUNT_SIZE], e[AMOUNT_SIZE];

	put_line(t, CLI_PLAIN, "latency  added p50 %s, p99 %s; all p50 %s, p99 %s",
	    quantile(&n->added, &b->added, 0.5, a), quantile(&n->added, &b->added, 0.99, c),
	    quantile(&n->all, &b->all, 0.5, d), quantile(&n->all, &b->all, 0.99, e));
}

/* ---- the tables ---- */

static void
put_sinks(struct top *t)
{
	const json_t *sinks = at(t->status, "sinks"), *s;
	char age[AMOUNT_SIZE];

	if (json_array_size(sinks) == 0)
		return;
	put_line(t, CLI_PLAIN, "%s", "");
	put_line(t, CLI_BOLD, "%-24s %-5s %10s %8s %10s", "SINK", "STATE", "WAITING", "OLDEST",
	    "DELIVERED");
	for (size_t i = 0; (s = json_array_get(sinks, i)) != NULL; i++) {
		bool up = json_is_true(at(s, "up"));

		put_line(t, up ? CLI_PLAIN : CLI_BAD, "%-24s %-5s %10.0f %8s %10.0f  %s",
		    text(s, "name"), up ? "up" : "down", number(s, "waiting"),
		    amount(number(s, "oldestSeconds"), seconds, age), number(s, "delivered"),
		    text(s, "lastError"));
	}
}

static double
weight(const struct top *t, const struct sample_action *a)
{
	if (t->sort == 'c')
		return a->calls;
	return t->sort == 'f' ? a->failed + a->unknown : call_rate(t, a);
}

static int
compare(const void *a, const void *b, void *arg)
{
	const struct sample_action *x = *(const struct sample_action *const *)a,
				   *y = *(const struct sample_action *const *)b;
	double d = weight(arg, y) - weight(arg, x);

	if (((const struct top *)arg)->sort == 'n' || d == 0)
		return strcmp(x->name, y->name);
	return d < 0 ? -1 : 1;
}

static void
put_actions(struct top *t)
{
	const struct sample_action *order[SAMPLE_ACTIONS_MAX];

	for (size_t i = 0; i < t->now->nactions; i++)
		order[i] = &t->now->actions[i];
	qsort_r(order, t->now->nactions, sizeof(order[0]), compare, t);
	put_line(t, CLI_PLAIN, "%s", "");
	put_line(t, CLI_BOLD, "%-40s %10s %12s %10s %10s", "ACTION", "CALLS/S", "CALLS", "FAILED",
	    "UNKNOWN");
	for (size_t i = 0; i < t->now->nactions; i++) {
		const struct sample_action *a = order[i];

		put_line(t, a->failed + a->unknown > 0 ? CLI_WARN : CLI_PLAIN,
		    "%-40s %10.1f %12.0f %10.0f %10.0f", a->name, call_rate(t, a), a->calls,
		    a->failed, a->unknown);
	}
}

static void
put_all(struct top *t)
{
	if (t->status == NULL) {
		put_line(t, CLI_BAD, "%s", t->why.msg);
		return;
	}
	put_health(t);
	put_trail(t);
	put_traffic(t);
	put_latency(t);
	put_sinks(t);
	put_actions(t);
}

/* ---- the terminal ---- */

static void
enter(const struct termios *usual)
{
	struct termios raw = *usual;

	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	fputs("\x1b[?1049h\x1b[?25l", stdout); /* the other screen, no cursor */
}

static void
leave(const struct termios *usual)
{
	fputs("\x1b[?25h\x1b[?1049l", stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSANOW, usual);
}

static void
draw(struct top *t)
{
	struct winsize size = { .ws_row = 24, .ws_col = 80 };

	ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	t->rows = size.ws_row - 1;
	t->width = size.ws_col;
	fputs("\x1b[H", stdout);
	put_all(t);
	fputs("\x1b[J", stdout); /* what is left of a longer one */
	printf("\x1b[%u;1H", size.ws_row);
	cli_term_put("q quit  r c f n: order by rate, calls, failures, name", 0, t->width,
	    t->colour ? CLI_FAINT : CLI_PLAIN);
	fputs("\x1b[K", stdout);
	fflush(stdout);
}

/* False: it is over. */
static bool
take_signal(int fd, const struct termios *usual)
{
	struct signalfd_siginfo info;

	if (read(fd, &info, sizeof(info)) != sizeof(info) || info.ssi_signo == SIGWINCH)
		return true;
	if (info.ssi_signo != SIGTSTP)
		return false;
	leave(usual);
	raise(SIGSTOP);
	enter(usual);
	return true;
}

static bool
take_key(struct top *t)
{
	char key;

	if (read(STDIN_FILENO, &key, 1) != 1 || key == 'q')
		return false;
	if (strchr("rcfn", key) != NULL)
		t->sort = key;
	return true;
}

/* Draws anew at each key and signal; until the time for the next look, or false: it is over. */
static bool
wait_for_next(struct top *t, int signals, const struct termios *usual)
{
	int64_t until = clock_mono_ns() + PERIOD_NS, left;
	struct pollfd fds[] = { { .fd = STDIN_FILENO, .events = POLLIN },
		{ .fd = signals, .events = POLLIN } };

	while ((left = until - clock_mono_ns()) > 0) {
		if (poll(fds, 2, (int)(left / CLOCK_NS_PER_MS) + 1) <= 0)
			continue;
		if ((fds[0].revents != 0 && !take_key(t)) ||
		    (fds[1].revents != 0 && !take_signal(signals, usual)))
			return false;
		draw(t);
	}
	return true;
}

static int
watch(struct top *t, struct err *err)
{
	static const int caught[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH };
	struct termios usual;
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(caught) / sizeof(caught[0]); i++)
		sigaddset(&set, caught[i]);
	if (tcgetattr(STDIN_FILENO, &usual) == -1 || sigprocmask(SIG_BLOCK, &set, NULL) == -1 ||
	    (fd = signalfd(-1, &set, SFD_CLOEXEC)) == -1)
		return err_set_errno(err, "the terminal");
	enter(&usual);
	do {
		ask(t);
		draw(t);
	} while (wait_for_next(t, fd, &usual));
	leave(&usual);
	close(fd);
	return 0;
}

/* ---- the whole ---- */

static int
find_socket(struct top *t, struct err *err)
{
	struct config *config;

	if (t->at.path != NULL)
		return 0;
	if (config_load(t->at.file, NULL, &config, err) == -1)
		return -1;
	if (config->admin.socket == NULL)
		err_set(err, "%s: there is no \"admin.socket\"", t->at.file);
	else if ((t->path = strdup(config->admin.socket)) == NULL)
		err_set(err, "memory is short");
	t->at.path = t->path;
	config_unref(config);
	return t->path != NULL ? 0 : -1;
}

static int
open_top(struct top *t, struct err *err)
{
	t->now = calloc(1, sizeof(*t->now));
	t->before = calloc(1, sizeof(*t->before));
	if (t->now == NULL || t->before == NULL)
		return err_set(err, "memory is short");
	return find_socket(t, err);
}

static int
show(struct top *t, struct err *err)
{
	if (!t->once)
		return watch(t, err);
	if (ask(t) == -1) {
		*err = t->why;
		return -1;
	}
	put_all(t);
	return 0;
}

static int
top(const struct cli_args *a)
{
	struct top t = {
		.at = { cli_value(a, "FILE"), cli_value(a, "--socket"), PATIENCE_S },
		.once = cli_value(a, "--once") != NULL,
		.sort = 'r',
	};
	struct err err;
	int rc;

	if (!t.once && (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)))
		return cli_usage(a, "it wants a terminal, or --once");
	if ((rc = cli_term_colour(a, &t.colour)) != CLI_OK)
		return rc;
	if (open_top(&t, &err) == -1 || show(&t, &err) == -1)
		rc = cli_fail(CLI_FAILED, &err);
	else
		rc = cli_printed(true);
	json_decref(t.status);
	free(t.now);
	free(t.before);
	free(t.path);
	return rc;
}

const struct cli_command cli_top = {
	.name = "top",
	.help =
	    "show a running sidecar's health, calls, latency and sinks on a terminal, renewed each "
	    "second",
	.rows =
	    (const struct cli_row[]){
		CLI_SIDECAR,
		{ "--once", .help = "once, as text", .flags = CLI_MAY },
		CLI_COLOR,
		{ 0 },
	    },
	.run = top,
};
