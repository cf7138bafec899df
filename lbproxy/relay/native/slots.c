/* Counter slots: bytes each way, one writer a thread, added up by the owner when it reads them. */
#include "state.h"

#include <errno.h>

static int counters_make(struct engine *engine, uint32_t chunk)
{
    for (unsigned at = 0; at < engine->threads; at++) {
        struct thread *thread = engine->thread[at];
        if (atomic_load_explicit(&thread->counters[chunk], memory_order_relaxed) != NULL)
            continue;
        struct counter *made = allocate_clear(engine->calls, SLOTS_A_CHUNK * sizeof *made);
        if (made == NULL)
            return ENOMEM;
        atomic_store_explicit(&thread->counters[chunk], made, memory_order_release);
    }
    return 0;
}

int engine_open_slot(struct engine *engine, uint32_t *slot)
{
    if (engine->free_slot_count) {
        *slot = engine->free_slots[--engine->free_slot_count];
    } else {
        if (engine->slots == SLOT_CHUNKS * SLOTS_A_CHUNK)
            return ENOSPC;
        if (counters_make(engine, engine->slots / SLOTS_A_CHUNK))
            return ENOMEM;
        /* Room to give every slot back, so that giving back cannot fail. */
        if (engine->slots == engine->free_slot_room) {
            uint32_t room = engine->free_slot_room ? 2 * engine->free_slot_room : SLOTS_A_CHUNK;
            uint32_t *larger = engine->calls->allocate(room * sizeof *larger);
            if (larger == NULL)
                return ENOMEM;
            if (engine->free_slots != NULL)
                engine->calls->release(engine->free_slots);
            engine->free_slots = larger;
            engine->free_slot_room = room;
        }
        *slot = engine->slots++;
    }
    for (unsigned at = 0; at < engine->threads; at++) {
        struct counter *chunk =
            atomic_load_explicit(&engine->thread[at]->counters[*slot / SLOTS_A_CHUNK], memory_order_relaxed);
        atomic_store_explicit(&chunk[*slot % SLOTS_A_CHUNK].sent, 0, memory_order_relaxed);
        atomic_store_explicit(&chunk[*slot % SLOTS_A_CHUNK].received, 0, memory_order_relaxed);
    }
    return 0;
}

void engine_close_slot(struct engine *engine, uint32_t slot)
{
    if (slot < engine->slots && engine->free_slot_count < engine->free_slot_room)
        engine->free_slots[engine->free_slot_count++] = slot;
}

bool engine_read_slot(const struct engine *engine, uint32_t slot, uint64_t *sent, uint64_t *received)
{
    *sent = *received = 0;
    if (slot >= engine->slots)
        return false;
    for (unsigned at = 0; at < engine->threads; at++) {
        struct counter *chunk =
            atomic_load_explicit(&engine->thread[at]->counters[slot / SLOTS_A_CHUNK], memory_order_relaxed);
        *sent += count_of(&chunk[slot % SLOTS_A_CHUNK].sent);
        *received += count_of(&chunk[slot % SLOTS_A_CHUNK].received);
    }
    return true;
}
