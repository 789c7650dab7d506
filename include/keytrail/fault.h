/*
 * fault: named instants at which a test lets the process die.
 *
 * FAULT_POINT("module.instant") is nothing in the program that is shipped.  In the one that is built
 * with KEYTRAIL_FAULTS (build/keytrail-faults), KEYTRAIL_FAULT=<point>:<n> in the environment kills
 * the process, as SIGKILL does, when it passes that point for the n-th time.  A point that a test is
 * to visit needs nothing but its line in the source: the tests look there.  Any thread.
 */
#ifndef KEYTRAIL_FAULT_H
#define KEYTRAIL_FAULT_H

#ifdef KEYTRAIL_FAULTS
#define FAULT_POINT(name) fault_point(name)
#else
#define FAULT_POINT(name) ((void)0)
#endif

void fault_point(const char *name);

#endif
