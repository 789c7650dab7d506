/*
 * The event path of keytrail, from the claim of room to the sink, under crashes.
 *
 * An inline or proctype has the name of the function whose steps it takes (tests/lint/check-model
 * looks it up); env_* is the kernel and the disk, check_* are the promises.  What stands between two
 * steps is where a kill, a power cut or another thread may come in; a d_step is one store, one
 * system call, or work on memory that nobody else sees.
 *
 * Bounds, each a -D of tests/model/run: CALLS (2) calls on RINGS (1) workers, each ring with room
 * for CAPACITY (4) lines; KILLS, CUTS (of power) and SYNC_FAILURES at any step, recovery included,
 * and CRASHES of both kinds together; FULL times of a full disk; with ROLL, a new segment after so
 * many lines.  GUARANTEE is ASYNC, DURABLE or INTENT.
 *
 * Not here: the bytes (checksums hold or do not), the own events of the sidecar, retention, damage
 * by others, a recovery that itself meets a failing disk (the start fails then).
 */
#define ASYNC	0
#define DURABLE 1
#define INTENT	2

#ifndef GUARANTEE
#define GUARANTEE DURABLE
#endif
#ifndef CALLS
#define CALLS 2
#endif
#ifndef RINGS
#define RINGS 1
#endif
#ifndef CAPACITY
#define CAPACITY 4
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef CUTS
#define CUTS 0
#endif
#ifndef CRASHES
#define CRASHES (KILLS + CUTS)
#endif
#ifndef SYNC_FAILURES
#define SYNC_FAILURES 0
#endif
#ifndef FULL
#define FULL 0
#endif
#ifndef SINKS
#define SINKS 0
#endif
#ifndef ROLL
#define ROLL 0
#endif

/* MUTANT: the one rule that is broken, to see the model find it. */
#define RELEASE_EARLY		  1
#define RING_RELEASE_BEFORE_SYNC  2
#define FORWARD_BEFORE_SLOT	  3
#define FORWARD_BEFORE_INTENT	  4
#define FORWARD_WITHOUT_ROOM	  5
#define CLOSE_SLOT_BEFORE_COMMIT  6
#define SINK_PAST_MARK		  7
#define NO_ID_CHECK		  8
#define NO_HORIZON		  9
#define REUSE_NUMBER		 10
#define SYNC_AGAIN		 11
#define RELEASE_BEFORE_ROOM	 12
#define NO_MARK_AT_OPEN		 13
#define NO_WRITE_AGAIN		 14
#define HORIZON_TOO_EARLY	 15
#define GIVE_BACK_ROOM		 16
#define COUNT_BESIDE_SLOT	 17
#ifndef MUTANT
#define MUTANT 0
#endif
#define MUTATED(m) (MUTANT == m)

#define ENTRIES	 (2 * CALLS + 1)
#define LINES	 8 /* of a segment */
#define NUMBERS	 12
#define SEGMENTS 8
#define NONE	 255

/* A line is a call and a kind; both kinds of closing event are odd. */
#define CLOSING	   1
#define INTENTION  2
#define UNKNOWN	   3
#define LINE(c, k) ((c) * 4 + (k))
#define CALL(l)	   ((l) / 4)
#define IS_CLOSING(l) (((l) & 1) == 1)
#define IS_INTENT(l)  (((l) & 3) == INTENTION)

/* A mark is a segment and an offset in it, counted in lines. */
#define MARK(s, o)  ((s) * 16 + (o))
#define SEGMENT(m)  ((m) / 16)
#define OFFSET(m)   ((m) % 16)
#define SEQ(m)	    (seg[SEGMENT(m)].first + OFFSET(m) - 1)

/* ---- what outlives the process: files, as the page cache and as the disk has them ---- */

typedef segment_file {
	byte first;	  /* the number in its name */
	byte n;
	byte line[LINES]; /* 0: no line */
	byte disk;	  /* a bit for each line: the disk has it */
	byte dirty;	  /* the next sync will write it */
	byte allocated;	  /* lines that have room on the disk, whatever its length */
};
segment_file seg[SEGMENTS]; /* from 1 on, in the order of their names */
byte nseg = 1;
byte state_mark, state_mark_disk;
byte cursor;

typedef header {
	byte tail, offset, segment, horizon_offset, horizon_segment;
};
typedef mapping {
	header h, disk;
	byte line[ENTRIES];
	/* slots */
	bool open[CALLS];
	byte call[CALLS];
};
mapping file[RINGS];
bool published[CALLS]; /* in this epoch: slot and mark are what the file may hold of it */
byte slot_of[CALLS], slot_mark[CALLS];

bool disk_full;
byte kills, cuts, sync_failures, fulls;

/* ---- what dies with it ---- */

typedef producer {
	bool busy; /* the event loop is in a callback */
	byte head, claimed, tail_seen;
	byte open[2], began[2], closed_at[2], generation;
};
producer ring[RINGS];
byte published_head[RINGS]; /* atomic head, as the consumer sees it */
byte generation_of[CALLS];
byte pos[RINGS];
byte ring_state; /* one for all rings */
#define RING_OK	     0
#define RING_NO_ROOM 1
#define RING_FAILED  2
byte queue[ENTRIES * RINGS], nqueue;
byte fd, offset, last_seq, mark; /* of struct trail */
byte failures;
byte running; /* exchanges */
bool stopped;
bool down;

/* ---- the witness ---- */

bool begun[CALLS], forwarded[CALLS], answered[CALLS], lost[CALLS];
byte given[NUMBERS]; /* the line that was durable or delivered under this number */
bool delivered[NUMBERS];

byte i, s, c, k; /* scratch of one d_step or atomic; 0 between them */

#define SEGMENT_END(x) ((x) + 1 < nseg -> seg[(x) + 1].first : NUMBERS)
#define IN_LOG(x, o)   (seg[x].line[o] != 0 && seg[x].first + (o) < SEGMENT_END(x))
#define ON_DISK(x, o)  ((seg[x].disk >> (o)) & 1)

/* The log has a closing event (odd) or an intent (not odd) of this call, and so has the disk. */
inline check_durable(call, odd)
{
	d_step {
		k = 0;
		for (s : 1 .. nseg - 1) {
			for (i : 0 .. LINES - 1) {
				if
				:: i < seg[s].n && IN_LOG(s, i) && ON_DISK(s, i) &&
				   CALL(seg[s].line[i]) == call && (seg[s].line[i] & 1) == odd -> k++
				:: else
				fi
			}
		}
		assert(k >= 1);
		s = 0; i = 0; k = 0
	}
}

/* A number that was durable or seen once is that line for ever. */
inline check_numbers()
{
	for (s : 1 .. nseg - 1) {
		for (i : 0 .. LINES - 1) {
			if
			:: i < seg[s].n && IN_LOG(s, i) && seg[s].first + i <= SEQ(state_mark) ->
				k = seg[s].first + i;
				assert(given[k] == 0 || given[k] == seg[s].line[i]);
				given[k] = seg[s].line[i]
			:: else
			fi
		}
	}
	s = 0; i = 0; k = 0
}

inline check_delivery(number, line)
{
	for (s : 1 .. nseg - 1) {
		if
		:: seg[s].first <= number && number < SEGMENT_END(s) ->
			line = seg[s].line[number - seg[s].first];
			assert(line == 0 || ON_DISK(s, number - seg[s].first))
		:: else
		fi
	}
	assert(given[number] == 0 || given[number] == line);
	given[number] = line;
	delivered[number] = true;
	s = 0
}

/* At rest: one record for each call that was forwarded, one closing event for each intent. */
inline check_records()
{
	d_step {
		for (c : 0 .. CALLS - 1) {
			byte closings = 0, intents = 0;
			for (s : 1 .. nseg - 1) {
				for (i : 0 .. LINES - 1) {
					if
					:: i < seg[s].n && IN_LOG(s, i) && CALL(seg[s].line[i]) == c ->
						assert(SINKS == 0 || delivered[seg[s].first + i]);
						if
						:: IS_CLOSING(seg[s].line[i]) -> closings++
						:: else -> intents++
						fi
					:: else
					fi
				}
			}
			assert(closings <= 1 && intents <= 1 && intents <= closings);
			assert(!lost[c] || closings == 0 || cuts > 0);
			assert(!forwarded[c] || closings == 1 || (GUARANTEE == ASYNC && lost[c]) ||
			    (cuts > 0 && GUARANTEE == ASYNC) ||
			    (cuts > 0 && GUARANTEE == DURABLE && !answered[c]));
			closings = 0; intents = 0
		}
		c = 0; s = 0; i = 0
	}
}

/* ---- the kernel and the disk ---- */

/* A page of a mapping reaches the disk whenever the kernel likes: this version may be the last. */
inline env_writeback_header(r)
{
	if
	:: cuts < CUTS && kills + cuts < CRASHES ->
		d_step {
			file[r].disk.tail = file[r].h.tail;
			file[r].disk.offset = file[r].h.offset;
			file[r].disk.segment = file[r].h.segment;
			file[r].disk.horizon_offset = file[r].h.horizon_offset;
			file[r].disk.horizon_segment = file[r].h.horizon_segment
		}
	:: true
	fi
}

/* Of what was not synced, each line is on the disk or not. */
inline env_lose_lines(x)
{
	for (i : 0 .. LINES - 1) {
		if
		:: i < seg[x].n && (seg[x].dirty >> i) & 1 -> seg[x].disk = seg[x].disk | (1 << i)
		:: i < seg[x].n && (seg[x].dirty >> i) & 1
		:: i >= seg[x].n || !((seg[x].dirty >> i) & 1)
		fi
	}
	seg[x].dirty = 0;
	i = 0
}

inline env_drop_lines(x)
{
	for (i : 0 .. LINES - 1) {
		if
		:: !ON_DISK(x, i) -> seg[x].line[i] = 0
		:: else
		fi
	}
	do
	:: seg[x].n > 0 && seg[x].line[seg[x].n - 1] == 0 -> seg[x].n--
	:: else -> break
	od;
	i = 0
}

/* The state word and the line of a slot are on different pages: any versions of this epoch. */
inline env_mix_slots(r)
{
	for (s : 0 .. CALLS - 1) {
		for (c : 0 .. CALLS - 1) {
			if
			:: published[c] && c % RINGS == r && slot_of[c] == s ->
				file[r].call[s] = c;
				if
				:: file[r].open[s] = true
				:: file[r].open[s] = false
				fi
			:: published[c] && c % RINGS == r && slot_of[c] == s /* not this one */
			:: !(published[c] && c % RINGS == r && slot_of[c] == s)
			fi
		}
	}
	s = 0; c = 0
}

inline env_cut_ring(r)
{
	file[r].h.tail = file[r].disk.tail;
	file[r].h.offset = file[r].disk.offset;
	file[r].h.segment = file[r].disk.segment;
	file[r].h.horizon_offset = file[r].disk.horizon_offset;
	file[r].h.horizon_segment = file[r].disk.horizon_segment;
	for (i : 0 .. ENTRIES - 1) {
		if
		:: file[r].line[i] != 0 -> file[r].line[i] = 0
		:: true
		fi
	}
	i = 0;
	env_mix_slots(r)
}

/* Any mark since the page was last synced. */
inline env_cut_state()
{
	do
	:: SEQ(state_mark) > SEQ(state_mark_disk) && OFFSET(state_mark) > 0 -> state_mark--
	:: SEQ(state_mark) > SEQ(state_mark_disk) && OFFSET(state_mark) == 0 ->
		s = SEGMENT(state_mark);
		state_mark = MARK(s - 1, seg[s].first - seg[s - 1].first);
		s = 0
	:: break
	od
}

inline env_power_cut()
{
	byte x;

	for (x : 1 .. nseg - 1) {
		env_lose_lines(x);
		d_step { env_drop_lines(x) }
	}
	for (x : 0 .. RINGS - 1) {
		env_cut_ring(x)
	}
	x = 0;
	env_cut_state();
	do
	:: cursor > 0 -> cursor--
	:: break
	od
}

/* Memory that no longer is. */
inline env_die()
{
	d_step {
		for (i : 0 .. RINGS - 1) {
			ring[i].busy = false; ring[i].head = 0; ring[i].claimed = 0;
			ring[i].tail_seen = 0; ring[i].open[0] = 0; ring[i].open[1] = 0;
			ring[i].began[0] = 0; ring[i].began[1] = 0; ring[i].generation = 0;
			ring[i].closed_at[0] = 0; ring[i].closed_at[1] = 0;
			published_head[i] = 0; pos[i] = 0
		}
		for (i : 0 .. CALLS - 1) {
			generation_of[i] = 0
		}
		for (i : 0 .. ENTRIES * RINGS - 1) {
			queue[i] = 0
		}
		i = 0; s = 0; c = 0; k = 0; nqueue = 0; ring_state = RING_OK;
		fd = 0; offset = 0; last_seq = 0; mark = 0;
		failures = 0; running = 0; stopped = false; down = true
	}
}

/* When all are to die, the youngest goes first and nobody else moves. */
#define MAY_RUN (!down || _nr_pr == _pid + 1)

/* ---- the ring: producer ---- */

#define FITS(r) (ring[r].head - ring[r].tail_seen + ring[r].claimed + need <= CAPACITY)

/* The tail is read before the state: who sees the room that was released sees why not to take it. */
inline ring_claim(r, need, ok)
{
	ok = false;
	if
	:: !FITS(r) -> ring[r].tail_seen = file[r].h.tail
	:: else
	fi;
	d_step {
		if
		:: FITS(r) && (ring_state == RING_OK || MUTATED(FORWARD_WITHOUT_ROOM)) ->
			ring[r].claimed = ring[r].claimed + need;
			ok = true
		:: else
		fi
	}
}

inline ring_unclaim(r, n)
{
	ring[r].claimed = ring[r].claimed - n
}

/* Recovery finds the entry as soon as it is whole; the consumer, when the head has moved. */
inline ring_commit(r, text, position)
{
	d_step {
		file[r].line[ring[r].head] = text;
		ring[r].claimed--;
		ring[r].head++;
		position = ring[r].head
	};
	published_head[r] = ring[r].head
}

/* Where there is one segment, half a mark is the old one or the new one: in power cuts its stores
 * are one step, to save states.  BETWEEN is where a store ends. */
#if CUTS == 0 || ROLL > 0 || SYNC_FAILURES > 0
#define TOGETHER(stores)   stores
#define BETWEEN(writeback) writeback;
#else
#define TOGETHER(stores)   atomic { stores }
#define BETWEEN(writeback)
#endif

inline set_horizon(r, m)
{
	TOGETHER(
		file[r].h.horizon_offset = OFFSET(m);
		BETWEEN(env_writeback_header(r))
		file[r].h.horizon_segment = SEGMENT(m);
		env_writeback_header(r)
	)
}

#define generation_done(r, g) \
	(ring[r].open[g] == 0 && (file[r].h.tail >= ring[r].closed_at[g] || MUTATED(HORIZON_TOO_EARLY)))

inline join_generation(r, call, m)
{
	if
	:: generation_done(r, 0) && generation_done(r, 1) ->
		ring[r].began[ring[r].generation] = m;
		set_horizon(r, m)
	:: !(generation_done(r, 0) && generation_done(r, 1)) &&
	   generation_done(r, 1 - ring[r].generation) ->
		set_horizon(r, ring[r].began[ring[r].generation]);
		d_step {
			ring[r].generation = 1 - ring[r].generation;
			ring[r].began[ring[r].generation] = m
		}
	:: else
	fi;
	d_step {
		generation_of[call] = ring[r].generation;
		ring[r].open[ring[r].generation]++
	}
}

/* The lowest that is free. */
inline ring_slot_take(r, slot)
{
	d_step {
		slot = 0;
		do
		:: file[r].open[slot] -> slot++
		:: else -> break
		od
	}
}

inline ring_slot_publish(r, call, slot)
{
	slot_mark[call] = MARK(file[r].h.segment, file[r].h.offset);
	join_generation(r, call, slot_mark[call]);
	d_step {
		file[r].call[slot] = call;
		slot_of[call] = slot;
		published[call] = true
	};
	file[r].open[slot] = true
}

inline ring_slot_close(r, call)
{
	file[r].open[slot_of[call]] = false;
	d_step {
		ring[r].open[generation_of[call]]--;
		ring[r].closed_at[generation_of[call]] = ring[r].head
	}
	if
	:: MUTATED(HORIZON_TOO_EARLY) && ring[r].open[0] + ring[r].open[1] == 0 -> set_horizon(r, 0)
	:: else
	fi
}

/* ---- the ring: consumer ---- */

inline ring_release(r, p, m)
{
	TOGETHER(
		file[r].h.tail = p;
		BETWEEN(env_writeback_header(r))
		file[r].h.offset = OFFSET(m);
		BETWEEN(env_writeback_header(r))
		file[r].h.segment = SEGMENT(m);
		env_writeback_header(r)
	)
}

/* ---- the trail ---- */

inline trail_segment_create(first_number)
{
	d_step {
		assert(nseg < SEGMENTS);
		seg[nseg].first = first_number;
		seg[nseg].n = 0; seg[nseg].disk = 0; seg[nseg].dirty = 0;
		seg[nseg].allocated = 0;
		for (i : 0 .. LINES - 1) {
			seg[nseg].line[i] = 0
		}
		i = 0;
		nseg++
	}
}

inline trail_segment_use(at)
{
	d_step {
		fd = nseg - 1;
		offset = at;
		if
		:: seg[fd].allocated < at || MUTATED(GIVE_BACK_ROOM) -> seg[fd].allocated = at
		:: else
		fi
	}
}

inline trail_reserve(ok)
{
	d_step {
		ok = true;
		if
		:: seg[fd].allocated >= offset + nqueue + RINGS * CAPACITY
		:: seg[fd].allocated < offset + nqueue + RINGS * CAPACITY && !disk_full ->
			seg[fd].allocated = offset + nqueue + RINGS * CAPACITY
		:: else -> ok = false
		fi
	}
}

inline trail_append(text)
{
	last_seq++;
	queue[nqueue] = text;
	nqueue++
}

inline trail_write(ok)
{
	ok = true;
	if
	:: disk_full && offset + nqueue > seg[fd].allocated ->
		/* Only behind a failed sync: then the segment is a new one; and at a start, with what
		 * was served without room. */
		assert(sync_failures > 0 || (GUARANTEE == ASYNC && kills > 0));
		ok = false
	:: else ->
		do
		:: nqueue > 0 ->
			d_step {
				seg[fd].line[offset] = queue[0];
				seg[fd].disk = seg[fd].disk & ~(1 << offset);
				seg[fd].dirty = seg[fd].dirty | (1 << offset);
				offset++;
				seg[fd].n = offset;
				nqueue--;
				for (i : 0 .. ENTRIES * RINGS - 2) {
					queue[i] = queue[i + 1]
				}
				queue[ENTRIES * RINGS - 1] = 0;
				i = 0
			}
		:: else -> break
		od
	fi
}

inline trail_state_publish()
{
	d_step {
		state_mark = mark;
		check_numbers()
	}
}

inline roll()
{
	if
	:: ROLL > 0 && offset >= ROLL && !disk_full ->
		trail_segment_create(last_seq + 1);
		trail_segment_use(0);
		trail_reserve(ok)
	:: else
	fi
}

inline env_sync(ok)
{
	if
	:: d_step {
		seg[fd].disk = seg[fd].disk | seg[fd].dirty;
		seg[fd].dirty = 0;
		ok = true
	   }
	:: sync_failures < SYNC_FAILURES ->
		/* The kernel forgets that the pages were dirty, and says so once. */
		atomic {
			sync_failures++;
			env_lose_lines(fd);
			ok = false
		}
	fi
}

inline trail_sync(ok)
{
	ok = true;
	if
	:: last_seq == SEQ(mark)
	:: else ->
		env_sync(ok);
		if
		:: ok ->
			mark = MARK(fd, offset);
			trail_state_publish();
			roll()
		:: else
		fi
	fi
}

/* Whether the disk cuts the failed segment or not, its lines are the successor's. */
inline seal()
{
	if
	:: d_step {
		seg[fd].n = OFFSET(mark);
		for (i : 0 .. LINES - 1) {
			if
			:: i >= seg[fd].n -> seg[fd].line[i] = 0
			:: else
			fi
		}
		i = 0
	   }
	:: true
	fi
}

inline trail_reopen()
{
	d_step {
		nqueue = 0;
		for (i : 0 .. ENTRIES * RINGS - 1) {
			queue[i] = 0
		}
		i = 0;
		last_seq = SEQ(mark) - (MUTATED(REUSE_NUMBER) && mark > 0 -> 1 : 0)
	};
	if
	:: seg[fd].first == last_seq + 1 -> nseg-- /* the name that its successor needs */
	:: else -> seal()
	fi;
	trail_segment_create(last_seq + 1);
	trail_segment_use(0)
}

/* ---- the journal ---- */

inline journal_check_room(ok)
{
	trail_reserve(ok);
	ring_state = (ok -> RING_OK : RING_NO_ROOM)
}

inline journal_fail()
{
	failures++;
	if
	:: failures > 1 -> ring_state = RING_FAILED
	:: else
	fi
}

inline release()
{
	byte r;

	for (r : 0 .. RINGS - 1) {
		ring_release(r, pos[r], mark)
	}
	r = 0
}

inline journal_commit(ok)
{
	trail_write(ok);
	if
	:: MUTATED(RING_RELEASE_BEFORE_SYNC) -> release()
	:: else
	fi;
	if
	:: ok -> trail_sync(ok)
	:: else
	fi;
	if
	:: ok ->
		failures = 0;
		if
		:: MUTATED(RELEASE_BEFORE_ROOM)
		:: else -> journal_check_room(ok)
		fi;
		release()
	:: else -> journal_fail()
	fi
}

inline drain_ring(r)
{
	do
	:: pos[r] < published_head[r] ->
		d_step {
			trail_append(file[r].line[pos[r]]);
			pos[r]++
		}
	:: else -> break
	od
}

inline drain()
{
	byte d;

	for (d : 0 .. RINGS - 1) {
		drain_ring(d)
	}
	d = 0
}

inline repair(ok)
{
	byte m;

	trail_reopen();
	d_step {
		for (m : 0 .. RINGS - 1) {
			pos[m] = file[m].h.tail
		}
		m = 0
	};
	drain();
	journal_commit(ok)
}

#if RINGS == 1
#define RINGS_HOLD_MORE (pos[0] < published_head[0])
#else
#define RINGS_HOLD_MORE (pos[0] < published_head[0] || pos[1] < published_head[1])
#endif

/* The journal's thread. */
proctype work() provided (MAY_RUN)
{
	bool ok;

	{
		journal_check_room(ok);
		do
		:: failures > 0 && !(failures > 1 && disk_full) ->
			if
			:: MUTATED(SYNC_AGAIN) -> journal_commit(ok)
			:: else -> repair(ok)
			fi
		:: failures == 0 && RINGS_HOLD_MORE ->
			drain();
			journal_commit(ok);
			if
			:: MUTATED(RELEASE_BEFORE_ROOM) && failures == 0 -> journal_check_room(ok)
			:: else
			fi
		:: failures == 0 && ring_state == RING_NO_ROOM && !disk_full -> journal_check_room(ok)
		:: failures == 0 && running == 0 && !RINGS_HOLD_MORE -> break
		od;
		stopped = true
	} unless { down }
}

/* ---- a call ---- */

#define ROOM (1 + (GUARANTEE == INTENT -> 1 : 0))
#define ENTER atomic { !ring[r].busy -> ring[r].busy = true }
#define LEAVE ring[r].busy = false

inline exchange_publish()
{
	ring_slot_take(r, slot);
	ring_slot_publish(r, call, slot)
}

/* What was never forwarded changed nothing: its answer waits for no disk. */
inline exchange_record()
{
	if
	:: claimed > 1 -> ring_unclaim(r, 1)
	:: claimed == 0 ->
		ring_claim(r, 1, ok);
		claimed = (ok -> 1 : 0)
	:: else
	fi;
	if
	:: MUTATED(CLOSE_SLOT_BEFORE_COMMIT) && slot != NONE -> ring_slot_close(r, call)
	:: else
	fi;
	if
	:: claimed > 0 -> ring_commit(r, LINE(call, CLOSING), position)
	:: else -> tally_add()
	fi;
	if
	:: !MUTATED(CLOSE_SLOT_BEFORE_COMMIT) && slot != NONE -> ring_slot_close(r, call)
	:: else
	fi;
	if
	:: !forwarded[call] || GUARANTEE == ASYNC || claimed == 0 || MUTATED(RELEASE_EARLY) ->
		position = 0
	:: else
	fi
}

/* The count stands in a slot of its own, and in the same store takes the place of the call's. */
inline tally_add()
{
	lost[call] = true
}

inline on_forward()
{
	if
	:: GUARANTEE == INTENT -> check_durable(call, 0)
	:: else
	fi;
	forwarded[call] = true
}

inline on_relay()
{
	if
	:: forwarded[call] && GUARANTEE != ASYNC -> check_durable(call, 1)
	:: else
	fi;
	answered[call] = true
}

/* Room, slot, [intent,] the first byte upstream, record, answer. */
proctype exchange_start(byte call) provided (MAY_RUN)
{
	byte r = call % RINGS, slot = NONE, position, claimed;
	bool ok;

	{
		ENTER;
		begun[call] = true;
	acquire:
		ring_claim(r, ROOM, ok);
		if
		:: ok -> claimed = ROOM
		:: !ok && GUARANTEE == ASYNC
		:: !ok && GUARANTEE != ASYNC && ring_state == RING_OK ->
			LEAVE;
			if
			:: file[r].h.tail > ring[r].tail_seen || ring_state != RING_OK ->
				ENTER;
				goto acquire
			:: true -> /* 50 ms are over */
				ENTER;
				goto record
			fi
		:: !ok && GUARANTEE != ASYNC && ring_state != RING_OK -> goto record
		fi;
		if
		:: MUTATED(FORWARD_BEFORE_SLOT) -> forwarded[call] = true
		:: else
		fi;
		exchange_publish();
		if
		:: GUARANTEE == INTENT ->
			ring_commit(r, LINE(call, INTENTION), position);
			claimed--;
			LEAVE;
			if
			:: file[r].h.tail >= position || MUTATED(FORWARD_BEFORE_INTENT) -> ENTER
			:: true -> /* five seconds are over */
				ENTER;
				goto record
			fi
		:: else
		fi;
		on_forward();
		LEAVE;
		ENTER; /* the answer, or the end of waiting for one */
	record:
		exchange_record();
		LEAVE;
		file[r].h.tail >= position;
		on_relay();
		running--
	} unless { down }
}

/* ---- a sink ---- */

inline cursor_write(at)
{
	cursor = at
}

/* Unreadable numbers are stepped over. */
inline deliver(at)
{
	d_step {
		check_delivery(at, line);
		line = 0
	}
}

#define READABLE (MUTATED(SINK_PAST_MARK) -> last_seq - nqueue : SEQ(state_mark))

proctype publisher_run() provided (MAY_RUN)
{
	byte at = cursor, line;

	{
		assert(at <= SEQ(state_mark));
		do
		:: at < READABLE ->
			at++;
			deliver(at);
			cursor_write(at)
		:: stopped && at >= SEQ(state_mark) -> break
		od
	} unless { down }
}

/* ---- recovery ---- */

byte expect, line_end;
bool damaged;

/* Lines of the log up to the mark are there; of those behind it, what the page cache has is written
 * again and synced. */
inline scan_segment(x)
{
	if
	:: MUTATED(NO_WRITE_AGAIN) -> seg[x].disk = seg[x].disk | seg[x].dirty
	:: else -> seg[x].disk = NONE
	fi;
	seg[x].dirty = 0;
	expect = seg[x].first;
	line_end = 0;
	for (i : 0 .. LINES - 1) {
		if
		:: i < seg[x].n && IN_LOG(x, i) ->
			damaged = damaged || seg[x].first + i > expect;
			expect = seg[x].first + i + 1;
			line_end = i + 1
		:: i < seg[x].n && !IN_LOG(x, i) ->
			/* A durable line is gone. */
			assert(seg[x].first + i >= SEGMENT_END(x) || seg[x].first + i > SEQ(state_mark))
		:: else
		fi
	}
	if
	:: x + 1 < nseg && expect < seg[x + 1].first ->
		damaged = true;
		expect = seg[x + 1].first
	:: else
	fi;
	i = 0
}

inline choose_segment()
{
	if
	:: nseg > 1 && (seg[nseg - 1].first == expect || !damaged) ->
		d_step {
			seg[nseg - 1].n = line_end;
			for (i : 0 .. LINES - 1) {
				if
				:: i >= line_end -> seg[nseg - 1].line[i] = 0
				:: else
				fi
			}
			i = 0
		};
		trail_segment_use(line_end)
	:: else ->
		trail_segment_create(expect);
		trail_segment_use(0)
	fi
}

inline trail_recover()
{
	d_step {
		expect = (state_mark == 0 -> 1 : SEQ(state_mark) + 1);
		damaged = false;
		line_end = 0;
		for (s : 1 .. nseg - 1) {
			if
			:: s >= SEGMENT(state_mark) || s == nseg - 1 -> scan_segment(s)
			:: else
			fi
		}
		s = 0;
		assert(state_mark == 0 || expect > SEQ(state_mark))
	};
	choose_segment();
	d_step {
		last_seq = expect - 1;
		mark = MARK(fd, offset);
		expect = 0; line_end = 0; damaged = false
	}
}

inline trail_state_create()
{
	d_step {
		state_mark = mark;
		state_mark_disk = mark;
		check_numbers()
	}
}

bool marked, has_closing[CALLS], has_intent[CALLS], held_closing[CALLS];
byte from;

inline look_from(m)
{
	if
	:: !marked || m < from -> from = m
	:: else
	fi;
	marked = true
}

inline ring_horizon(x)
{
	if
	:: MUTATED(NO_HORIZON)
	:: !MUTATED(NO_HORIZON) && file[x].h.horizon_segment != 0 ->
		look_from(MARK(file[x].h.horizon_segment, file[x].h.horizon_offset))
	:: !MUTATED(NO_HORIZON) && file[x].h.horizon_segment == 0 && file[x].h.segment != 0 ->
		look_from(MARK(file[x].h.segment, file[x].h.offset))
	:: else
	fi
}

/* The rings' lines and slots; where the first repeat of them can be. */
inline ring_recover(x)
{
	for (i : 0 .. ENTRIES - 1) {
		if
		:: i >= file[x].h.tail && file[x].line[i] != 0 ->
			look_from(MARK(file[x].h.segment, file[x].h.offset));
			if
			:: IS_CLOSING(file[x].line[i]) -> held_closing[CALL(file[x].line[i])] = true
			:: else
			fi
		:: else
		fi
	}
	for (i : 0 .. CALLS - 1) {
		if
		:: file[x].open[i] -> look_from(slot_mark[file[x].call[i]])
		:: else
		fi
	}
	i = 0
}

inline mark_all_known()
{
	for (s : 1 .. nseg - 1) {
		for (i : 0 .. LINES - 1) {
			if
			:: i < seg[s].n && IN_LOG(s, i) && MARK(s, i) >= from &&
			   !MUTATED(NO_ID_CHECK) ->
				if
				:: IS_CLOSING(seg[s].line[i]) ->
					has_closing[CALL(seg[s].line[i])] = true
				:: else -> has_intent[CALL(seg[s].line[i])] = true
				fi
			:: else
			fi
		}
	}
	s = 0; i = 0
}

inline append_recovered(text)
{
	trail_append(text);
	if
	:: IS_CLOSING(text) -> has_closing[CALL(text)] = true
	:: else -> has_intent[CALL(text)] = true
	fi
}

inline append_unknown(x)
{
	for (i : 0 .. ENTRIES - 1) {
		if
		:: i >= file[x].h.tail && file[x].line[i] != 0 ->
			k = file[x].line[i];
			if
			:: IS_CLOSING(k) && !has_closing[CALL(k)] -> append_recovered(k)
			:: !IS_CLOSING(k) && !has_intent[CALL(k)] && !has_closing[CALL(k)] ->
				append_recovered(k)
			:: else
			fi
		:: else
		fi
	}
	for (i : 0 .. CALLS - 1) {
		c = file[x].call[i];
		if
		:: file[x].open[i] && !has_closing[c] && !held_closing[c] &&
		   (!lost[c] || MUTATED(COUNT_BESIDE_SLOT)) ->
			append_recovered(LINE(c, UNKNOWN))
		:: else
		fi
	}
	i = 0; k = 0; c = 0
}

inline close_intents()
{
	for (i : 0 .. CALLS - 1) {
		if
		:: has_intent[i] && !has_closing[i] -> append_recovered(LINE(i, UNKNOWN))
		:: else
		fi;
	}
	for (i : 0 .. CALLS - 1) {
		has_intent[i] = false;
		has_closing[i] = false;
		held_closing[i] = false
	}
	i = 0
}

/* A header as at the beginning, synced. */
inline ring_write_header(x, m)
{
	file[x].h.tail = 0; file[x].h.offset = OFFSET(m); file[x].h.segment = SEGMENT(m);
	file[x].h.horizon_offset = 0; file[x].h.horizon_segment = 0;
	file[x].disk.tail = 0; file[x].disk.offset = OFFSET(m); file[x].disk.segment = SEGMENT(m);
	file[x].disk.horizon_offset = 0; file[x].disk.horizon_segment = 0
}

inline ring_clear(x)
{
	d_step {
		ring_write_header(x, 0);
		for (i : 0 .. ENTRIES - 1) {
			file[x].line[i] = 0
		}
		for (i : 0 .. CALLS - 1) {
			file[x].open[i] = false;
			file[x].call[i] = 0;
			if
			:: i % RINGS == x ->
				published[i] = false;
				slot_of[i] = 0;
				slot_mark[i] = 0
			:: else
			fi
		}
		i = 0
	}
}

inline trail_recover_rings(ok)
{
	byte x;

	d_step {
		for (x : 0 .. RINGS - 1) {
			ring_recover(x);
			ring_horizon(x)
		}
		if
		:: marked ->
			mark_all_known();
			for (x : 0 .. RINGS - 1) {
				append_unknown(x)
			}
			close_intents()
		:: else
		fi;
		x = 0; marked = false; from = 0
	};
	trail_write(ok);
	if
	:: !ok ->
		/* The start fails, and nothing is cleared; a later one does the same. */
		!disk_full;
		trail_write(ok)
	:: else
	fi;
	trail_sync(ok);
	for (x : 0 .. RINGS - 1) {
		ring_clear(x)
	}
	x = 0
}

inline ring_open(x)
{
	d_step {
		ring_write_header(x, (MUTATED(NO_MARK_AT_OPEN) -> 0 : mark))
	}
}

inline journal_add_ring(x)
{
	ring_release(x, 0, mark)
}

proctype open_trail() provided (MAY_RUN)
{
	byte n;
	bool ok;

	{
		trail_recover();
		trail_state_create();
		trail_recover_rings(ok);
		for (n : 0 .. RINGS - 1) {
			ring_open(n);
			journal_add_ring(n)
		}
		journal_check_room(ok);
		atomic {
			run work();
			if
			:: SINKS > 0 -> run publisher_run()
			:: else
			fi;
			for (n : 0 .. CALLS - 1) {
				if
				:: !begun[n] ->
					running++;
					run exchange_start(n)
				:: else
				fi
			}
			n = 0
		}
	} unless { down }
}

init {
	seg[0].first = 1;
	run open_trail();
	do
	:: !down && _nr_pr > 1 && kills < KILLS && kills + cuts < CRASHES ->
		atomic { kills++; env_die() }
		_nr_pr == 1;
		atomic { down = false; run open_trail() }
	:: !down && _nr_pr > 1 && cuts < CUTS && kills + cuts < CRASHES ->
		atomic { cuts++; env_power_cut(); env_die() }
		_nr_pr == 1;
		atomic { down = false; run open_trail() }
	:: fulls < FULL && !disk_full && _nr_pr > 1 -> atomic { disk_full = true; fulls++ }
	:: disk_full -> disk_full = false
	:: _nr_pr == 1 && !disk_full -> break
	od;
	check_records()
}
