/* When sessions have to be looked at again: a timing wheel of two levels.
 *
 * Nothing is scanned and nothing is moved when bytes flow: whoever is called looks at the session's real deadline and adds it
 * again if that has moved on. A deadline is never seen early, and late by at most a tick (16.8 ms). What lies beyond the far wheel
 * (18 minutes) is looked at when the wheel has turned.
 */
#include "state.h"

#define NEAR_OF(tick) ((tick) % WHEEL_SLOTS)
#define FAR_OF(tick) ((tick) / WHEEL_SLOTS % WHEEL_SLOTS)

static void mark(uint64_t *map, uint64_t slot)
{
    map[slot / 64] |= UINT64_C(1) << slot % 64;
}

static void unmark(uint64_t *map, uint64_t slot)
{
    map[slot / 64] &= ~(UINT64_C(1) << slot % 64);
}

/* The distance from `from` to the first marked slot after it, round the wheel; 0 if none is marked. */
static uint64_t distance(const uint64_t *map, uint64_t from)
{
    for (uint64_t step = 1; step <= WHEEL_SLOTS;) {
        uint64_t slot = (from + step) % WHEEL_SLOTS;
        uint64_t word = map[slot / 64] >> slot % 64;
        if (word != 0) {
            step += (uint64_t)__builtin_ctzll(word);
            return step <= WHEEL_SLOTS ? step : 0;
        }
        step += 64 - slot % 64;
    }
    return 0;
}

static void place(struct wheel *wheel, struct session *session)
{
    uint64_t tick = session->armed_tick;
    if (tick <= wheel->tick) {
        link_in(&wheel->due, &session->armed);
    } else if (tick - wheel->tick < WHEEL_SLOTS && tick / WHEEL_SLOTS == wheel->tick / WHEEL_SLOTS) {
        link_in(&wheel->near[NEAR_OF(tick)], &session->armed);
        mark(wheel->near_map, NEAR_OF(tick));
    } else {
        link_in(&wheel->far[FAR_OF(tick)], &session->armed);
        mark(wheel->far_map, FAR_OF(tick));
    }
}

void wheel_start(struct wheel *wheel, uint64_t now)
{
    wheel->tick = now >> TICK_SHIFT;
    for (int slot = 0; slot < WHEEL_SLOTS; slot++) {
        link_clear(&wheel->near[slot]);
        link_clear(&wheel->far[slot]);
    }
    link_clear(&wheel->due);
}

void wheel_add(struct wheel *wheel, struct session *session, uint64_t at)
{
    uint64_t tick = (at + (UINT64_C(1) << TICK_SHIFT) - 1) >> TICK_SHIFT;
    uint64_t furthest = wheel->tick + (uint64_t)WHEEL_SLOTS * (WHEEL_SLOTS - 1);
    if (tick > furthest)
        tick = furthest;
    if (!link_alone(&session->armed)) {
        if (session->armed_tick <= tick)
            return;
        wheel_remove(wheel, session);
    }
    session->armed_tick = tick;
    place(wheel, session);
}

void wheel_remove(struct wheel *wheel, struct session *session)
{
    /* A mark may outlive its last session: then a wake-up finds an empty bucket, once. Clearing it here costs less. */
    struct link *other = session->armed.after;
    bool last = other == session->armed.before;
    link_out(&session->armed);
    if (!last || !link_alone(other))
        return;
    if (other >= wheel->near && other < wheel->near + WHEEL_SLOTS)
        unmark(wheel->near_map, (uint64_t)(other - wheel->near));
    else if (other >= wheel->far && other < wheel->far + WHEEL_SLOTS)
        unmark(wheel->far_map, (uint64_t)(other - wheel->far));
}

static void empty(struct wheel *wheel, struct link *bucket)
{
    struct link moved;
    if (link_alone(bucket))
        return;
    moved = *bucket;
    moved.before->after = &moved;
    moved.after->before = &moved;
    link_clear(bucket);
    while (!link_alone(&moved)) {
        struct session *session = OWNER_OF(moved.after, struct session, armed);
        link_out(&session->armed);
        place(wheel, session);
    }
}

/* A session whose time has come, taken out; NULL if there is none. */
struct session *wheel_due(struct wheel *wheel, uint64_t now)
{
    uint64_t last = now >> TICK_SHIFT;
    while (link_alone(&wheel->due) && wheel->tick < last) {
        /* To the next marked bucket of this round, or to the next round, where a far bucket becomes near ones. */
        uint64_t round_ends = wheel->tick | (WHEEL_SLOTS - 1);
        uint64_t step = distance(wheel->near_map, NEAR_OF(wheel->tick));
        uint64_t tick = step != 0 && wheel->tick + step <= round_ends ? wheel->tick + step : round_ends + 1;
        if (tick > last) {
            wheel->tick = last;
            break;
        }
        wheel->tick = tick;
        if (NEAR_OF(tick) == 0) {
            unmark(wheel->far_map, FAR_OF(tick));
            empty(wheel, &wheel->far[FAR_OF(tick)]);
        }
        unmark(wheel->near_map, NEAR_OF(tick));
        empty(wheel, &wheel->near[NEAR_OF(tick)]);
    }
    if (link_alone(&wheel->due))
        return NULL;
    struct session *session = OWNER_OF(wheel->due.after, struct session, armed);
    link_out(&session->armed);
    return session;
}

/* When `wheel_due` may have something, never later; NEVER without sessions. */
uint64_t wheel_next(const struct wheel *wheel)
{
    if (!link_alone(&wheel->due))
        return 0;
    uint64_t round = wheel->tick / WHEEL_SLOTS;
    uint64_t step = distance(wheel->near_map, NEAR_OF(wheel->tick));
    if (step != 0)
        return (wheel->tick + step) << TICK_SHIFT;
    step = distance(wheel->far_map, round % WHEEL_SLOTS);
    return step == 0 ? NEVER : ((round + step) * WHEEL_SLOTS) << TICK_SHIFT;
}
