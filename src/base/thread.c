#include "keytrail/thread.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>

static thread_enter_fn enter_;
static void *arg_;

struct start {
	const char *name;
	void *(*run)(void *);
	void *arg;
	sem_t entered;
	int rc;
	struct err *err;
};

void
thread_install(thread_enter_fn enter, void *arg)
{
	enter_ = enter;
	arg_ = arg;
}

static void *
begin(void *arg)
{
	struct start *s = arg;
	void *(*run)(void *) = s->run;
	void *run_arg = s->arg;
	int rc;

	/* pthread_setname_np of another thread would open a file. */
	prctl(PR_SET_NAME, s->name);
	rc = s->rc = enter_ != NULL ? enter_(arg_, s->name, s->err) : 0;
	sem_post(&s->entered); /* from here on it may be gone */
	return rc == 0 ? run(run_arg) : NULL;
}

/* What it starts with its maker has. */
static int
create(pthread_t *out, struct start *s)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(out, NULL, begin, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

int
thread_start(pthread_t *out, const char *name, void *(*run)(void *), void *arg, struct err *err)
{
	struct start s = { .name = name, .run = run, .arg = arg, .err = err };
	int rc;

	sem_init(&s.entered, 0, 0);
	if ((rc = create(out, &s)) != 0) {
		errno = rc;
		s.rc = err_set_errno(err, "start thread \"%s\"", name);
	} else {
		while (sem_wait(&s.entered) == -1)
			;
		if (s.rc == -1)
			pthread_join(*out, NULL);
	}
	sem_destroy(&s.entered);
	return s.rc;
}
