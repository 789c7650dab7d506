#include "keytrail/cpus.h"

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first numbers of a file; "max", or no such file: those that are there already. */
static void
read_numbers(const char *folder, const char *name, long *first, long *second)
{
	char path[PATH_MAX], line[64], *rest;
	FILE *f;

	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path) ||
	    (f = fopen(path, "re")) == NULL)
		return;
	if (fgets(line, sizeof(line), f) != NULL) {
		*first = strtol(line, &rest, 10);
		if (second != NULL)
			*second = strtol(rest, NULL, 10);
	}
	fclose(f);
}

/* Of one group; ULONG_MAX: it has no quota. */
static unsigned long
group_cpus(const char *folder)
{
	long quota = 0, period = 0;

	read_numbers(folder, "cpu.max", &quota, &period);
	read_numbers(folder, "cpu.cfs_quota_us", &quota, NULL);
	read_numbers(folder, "cpu.cfs_period_us", &period, NULL);
	return quota > 0 && period > 0 ? (unsigned long)((quota - 1) / period + 1) : ULONG_MAX;
}

/* The least of a group and of those above it.  Cuts the path up. */
static unsigned long
least_cpus(const char *root, const char *mount, char *path)
{
	unsigned long least = ULONG_MAX, cpus;
	char folder[PATH_MAX], *slash;

	for (;;) {
		if (snprintf(folder, sizeof(folder), "%s/sys/fs/cgroup%s%s", root, mount, path) <
			(int)sizeof(folder) &&
		    (cpus = group_cpus(folder)) < least)
			least = cpus;
		if ((slash = strrchr(path, '/')) == NULL)
			return least;
		*slash = '\0';
	}
}

static bool
has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; p != NULL;
	     p = strchr(p, ',') != NULL ? strchr(p, ',') + 1 : NULL)
		if (strncmp(p, word, n) == 0 && (p[n] == '\0' || p[n] == ','))
			return true;
	return false;
}

/* A line of /proc/self/cgroup: number, controllers (none: version 2) and path, with colons between. */
static unsigned long
line_cpus(const char *root, char *line)
{
	char *controllers = strchr(line, ':'), *path;

	line[strcspn(line, "\n")] = '\0';
	if (controllers == NULL || (path = strchr(++controllers, ':')) == NULL)
		return ULONG_MAX;
	*path++ = '\0';
	if (strstr(path, "..") != NULL) /* it is outside of what can be seen here */
		*path = '\0';
	if (*controllers == '\0')
		return least_cpus(root, "", path);
	return has_word(controllers, "cpu") ? least_cpus(root, "/cpu", path) : ULONG_MAX;
}

static unsigned long
quota_cpus(const char *root)
{
	char path[PATH_MAX], line[PATH_MAX];
	unsigned long least = ULONG_MAX, cpus;
	FILE *f;

	if (snprintf(path, sizeof(path), "%s/proc/self/cgroup", root) >= (int)sizeof(path) ||
	    (f = fopen(path, "re")) == NULL)
		return ULONG_MAX;
	while (fgets(line, sizeof(line), f) != NULL)
		if ((cpus = line_cpus(root, line)) < least)
			least = cpus;
	fclose(f);
	return least;
}

unsigned
cpus_available(const char *root)
{
	unsigned long quota = quota_cpus(root);
	cpu_set_t set;
	unsigned n = 1;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = (unsigned)CPU_COUNT(&set);
	if (quota < n)
		n = (unsigned)quota;
	return n < 1 ? 1 : n;
}
