#include "keytrail/thread.h"

#include <stddef.h>
#include <sys/prctl.h>

static thread_enter_fn enter_;
static void *arg_;

void
thread_install(thread_enter_fn enter, void *arg)
{
	enter_ = enter;
	arg_ = arg;
}

void
thread_begin(const char *name)
{
	/* pthread_setname_np of another thread would open a file. */
	prctl(PR_SET_NAME, name);
	if (enter_ != NULL)
		enter_(arg_, name);
}
