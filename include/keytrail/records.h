/*
 * records: the memory that OpenSSL works in, wiped whenever it gives it back.
 *
 * Records are decrypted in place, in buffers that OpenSSL frees as they are.  It takes such room with
 * each read and gives it back after it, as it does with what a record is written in: so a thread may
 * keep some, and wipes no more than was filled.  OpenSSL tells its allocator nothing but sizes, so what
 * a thread keeps is nobody's but its own.
 */
#ifndef KEYTRAIL_RECORDS_H
#define KEYTRAIL_RECORDS_H

#include <stddef.h>

/* Once, before anything else of OpenSSL is used, and start it.  -1: too late, or memory is short. */
int records_install(void);

/* n bytes from the network were put at p, which may be room for records.  Whoever reads for OpenSSL
 * tells of all, or of none: room of which nothing was told is wiped as a whole. */
void records_filled(const void *p, size_t n);

/* n bytes at p, which may be room for records, go to the network as they are: OpenSSL enciphers where
 * they stand, so nothing that is secret is left in that room. */
void records_sent(const void *p, size_t n);

/* How often OpenSSL has found no memory on the calling thread.  Its own words for what it could not do
 * then may blame a peer, or a file. */
unsigned records_failures(void);

/* The calling thread, which reads and writes much, keeps some of what it frees, until it ends. */
void records_keep(void);
void records_release(void);

#endif
