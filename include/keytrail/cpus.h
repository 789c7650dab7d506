/*
 * cpus: how many processors this process may use: its affinity and the quotas of its cgroups.
 *
 * A quota bounds all groups below it, so those of the process's own group and of each above it count
 * that can be seen: in a container that is the container's.  Versions 1 and 2 of cgroups are read
 * (cgroups(7); cpu.max, cpu.cfs_quota_us).
 */
#ifndef KEYTRAIL_CPUS_H
#define KEYTRAIL_CPUS_H

/* At least 1.  /proc and /sys are looked for under `root`: "" but in tests. */
unsigned cpus_available(const char *root);

#endif
