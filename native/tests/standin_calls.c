/* Options of a stand-in: what is set is read back, and what finds no room in the record goes nowhere. The program is
 * this process. */
#include "check.h"

#define mfd_identity_enter(call, ret) ((void)(call), (void)(ret), 0)
#define mfd_identity_leave(change) ((void)(change))
#include "../standin_calls.c"
#undef mfd_identity_enter
#undef mfd_identity_leave

#define GUARD 0xa5
#define N_CALLS 3000

/* Next to each other, as records are in the table. */
static struct {
    struct mfd_standin standin;
    uint8_t guard[OPTION_ROOM + sizeof(struct option)];
} records;

/* The kernel takes more room than an int needs, and looks at the int. */
static const struct {
    int level;
    int name;
} names[] = {
    {IPPROTO_IP, IP_TOS},       {IPPROTO_IP, IP_TTL},        {IPPROTO_IP, IP_MTU_DISCOVER},
    {IPPROTO_TCP, TCP_NODELAY}, {IPPROTO_TCP, TCP_KEEPIDLE}, {IPPROTO_TCP, TCP_KEEPINTVL},
    {IPPROTO_TCP, TCP_KEEPCNT}, {IPPROTO_TCP, TCP_SYNCNT},   {IPPROTO_TCP, TCP_USER_TIMEOUT},
    {IPPROTO_IP, IP_RECVERR},   {IPPROTO_TCP, TCP_QUICKACK}, {IPPROTO_IP, IP_MINTTL},
};

static void start(void)
{
    memset(&records, 0, sizeof(records));
    memset(records.guard, GUARD, sizeof(records.guard));
    records.standin.domain = AF_INET;
    records.standin.protocol = IPPROTO_TCP;
}

static bool guard_stands(void)
{
    for (size_t i = 0; i < sizeof(records.guard); i++)
        if (records.guard[i] != GUARD)
            return false;
    return true;
}

/* setsockopt() with an int at the beginning of so many bytes. Return: the answer. */
static int set(unsigned which, int value, unsigned size)
{
    uint8_t bytes[OPTION_ROOM] = {0};
    const struct mfd_notification call = {
        .pid = getpid(),
        .call.args = {0, (uint32_t)names[which].level, (uint32_t)names[which].name,
                      (uintptr_t)bytes, size},
    };

    memcpy(bytes, &value, sizeof(value));
    return set_option(&records.standin, &call);
}

static int get(unsigned which)
{
    int value = -1;

    CHECK_EQ(read_option(&records.standin, names[which].level, names[which].name, (uint8_t *)&value,
                         sizeof(value)),
             sizeof(value));
    return value;
}

static void what_is_set_is_read_back(void)
{
    start();
    CHECK_EQ(set(0, 16, sizeof(int)), 0);
    CHECK_EQ(set(4, 77, sizeof(int)), 0);
    CHECK_EQ(set(0, 32, sizeof(int)), 0);
    CHECK_EQ(get(0), 32);
    CHECK_EQ(get(4), 77);
}

/* Up to the last bytes of the room, where an option's head alone does not fit. */
static void what_fills_the_room_stays_within(void)
{
    const unsigned first = 188;

    for (unsigned left = 0; left <= sizeof(struct option) + 1; left++) {
        unsigned second =
            MFD_STANDIN_OPTIONS_ROOM - left - first - 2 * (unsigned)sizeof(struct option);

        start();
        CHECK_EQ(set(0, 16, first), 0);
        CHECK_EQ(set(1, 33, second), 0);
        CHECK_EQ(records.standin.options_size, MFD_STANDIN_OPTIONS_ROOM - left);
        CHECK_EQ(set(4, 77, OPTION_ROOM), 0);
        CHECK_EQ(records.standin.options_size, MFD_STANDIN_OPTIONS_ROOM - left);
        CHECK(guard_stands());
        CHECK_EQ(get(0), 16);
        CHECK_EQ(get(1), 33);
    }
}

static void no_order_of_sizes_leaves_the_room(void)
{
    uint32_t state = 4711;

    start();
    for (unsigned i = 0; i < N_CALLS; i++) {
        uint32_t chance = next_random(&state);
        unsigned most = (chance & 1) != 0 ? OPTION_ROOM : 8; /* few large ones, or many small */

        (void)set((chance >> 8) % MFD_COUNT(names), 1,
                  (unsigned)sizeof(int) + (chance >> 16) % (most - (unsigned)sizeof(int) + 1));
        CHECK(records.standin.options_size <= MFD_STANDIN_OPTIONS_ROOM);
        CHECK(guard_stands());
        if (check_n_failed > 0)
            return;
    }
}

int main(void)
{
    what_is_set_is_read_back();
    what_fills_the_room_stays_within();
    no_order_of_sizes_leaves_the_room();
    return check_result();
}
