#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "keytrail/cpus.h"

#include "tempdir.h"

#include <sched.h>

#define FILES_MAX 4

#define ALL	  0 /* no quota: those of the affinity */

static const struct cpus_case {
	const char *label;
	struct {
		const char *path, *text;
	} files[FILES_MAX];
	unsigned want;
} cases[] = {
	{ "no cgroups", { { NULL, NULL } }, ALL },
	{ "a container's own view",
	    { { "proc/self/cgroup", "0::/\n" }, { "sys/fs/cgroup/cpu.max", "50000 100000\n" } },
	    1 },
	{ "a part of a processor more is one more",
	    { { "proc/self/cgroup", "0::/\n" }, { "sys/fs/cgroup/cpu.max", "100001 100000\n" } },
	    2 },
	{ "whole ones are no more",
	    { { "proc/self/cgroup", "0::/\n" }, { "sys/fs/cgroup/cpu.max", "100000 100000\n" } },
	    1 },
	{ "no quota",
	    { { "proc/self/cgroup", "0::/\n" }, { "sys/fs/cgroup/cpu.max", "max 100000\n" } },
	    ALL },
	{ "the host's view of its own group",
	    { { "proc/self/cgroup", "0::/kubepods/pod1/a\n" },
		{ "sys/fs/cgroup/kubepods/pod1/a/cpu.max", "50000 100000\n" } },
	    1 },
	{ "a group above it",
	    { { "proc/self/cgroup", "0::/kubepods/pod1/a\n" },
		{ "sys/fs/cgroup/kubepods/pod1/a/cpu.max", "max 100000\n" },
		{ "sys/fs/cgroup/kubepods/cpu.max", "50000 100000\n" } },
	    1 },
	{ "a group beside it",
	    { { "proc/self/cgroup", "0::/kubepods/pod1\n" },
		{ "sys/fs/cgroup/kubepods/pod2/cpu.max", "50000 100000\n" } },
	    ALL },
	{ "a path that leaves what can be seen",
	    { { "proc/self/cgroup", "0::/../other\n" },
		{ "sys/fs/cgroup/cpu.max", "50000 100000\n" } },
	    1 },
	{ "version 1",
	    { { "proc/self/cgroup", "2:cpuacct:/b\n1:cpu:/a\n0::/\n" },
		{ "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "50000\n" },
		{ "sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n" } },
	    1 },
	{ "version 1 without a quota",
	    { { "proc/self/cgroup", "1:cpu:/\n" }, { "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n" },
		{ "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n" } },
	    ALL },
	{ "version 1 in a container: its group at the top, whatever the path",
	    { { "proc/self/cgroup", "4:cpuacct,cpu:/docker/77\n" },
		{ "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n" },
		{ "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n" } },
	    1 },
	{ "a controller whose name only begins so",
	    { { "proc/self/cgroup", "4:cpuacct,cpuset:/\n" },
		{ "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n" },
		{ "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n" } },
	    ALL },
	{ "nonsense",
	    { { "proc/self/cgroup", "\nx\n0:\n0::/a" }, { "sys/fs/cgroup/a/cpu.max", "-5 x\n" } },
	    ALL },
	{ "no period", { { "proc/self/cgroup", "0::/\n" }, { "sys/fs/cgroup/cpu.max", "50000" } },
	    ALL },
};

/* With the folders that lead to it. */
static void
write_file(const char *root, const char *path, const char *text)
{
	char full[2 * TEMPDIR_SIZE];
	FILE *f;

	snprintf(full, sizeof(full), "%s/%s", root, path);
	for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
		*p = '\0';
		mkdir(full, 0700);
		*p = '/';
	}
	f = fopen(full, "w");
	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void
the_quotas_of_all_groups_count(void **state)
{
	unsigned all = cpus_available("/nonexistent");

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct cpus_case *c = &cases[i];
		char root[TEMPDIR_SIZE];
		unsigned got, want = c->want == ALL || c->want > all ? all : c->want;

		tempdir_make(root);
		for (size_t f = 0; f < FILES_MAX && c->files[f].path != NULL; f++)
			write_file(root, c->files[f].path, c->files[f].text);
		got = cpus_available(root);
		tempdir_remove(root);
		if (got != want)
			fail_msg("%s: %u, wanted %u", c->label, got, want);
	}
}

static void
an_affinity_counts(void **state)
{
	cpu_set_t all, one;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	CPU_ZERO(&one);
	for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
		if (CPU_ISSET(cpu, &all))
			CPU_SET(cpu, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	assert_int_equal(cpus_available("/nonexistent"), 1);
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_quotas_of_all_groups_count),
		cmocka_unit_test(an_affinity_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
