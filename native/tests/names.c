/* Names: what a socket asked for and was given is found both ways, the last use wins, and one socket's many
 * names push out none but the oldest. */
#include "agents.h"

static struct mfd_names names;

static struct mfd_address address(unsigned number)
{
    struct mfd_address result = address_of("10.0.0.0", 53);

    result.bytes[2] = (uint8_t)(number >> 8);
    result.bytes[3] = (uint8_t)number;
    return result;
}

static void put(uint64_t cookie, unsigned asked, unsigned given)
{
    struct mfd_address asked_address = address(asked);
    struct mfd_address given_address = address(given);

    (void)mfd_names_put(&names, cookie, &asked_address, &given_address);
}

/* Return: what was given, or asked; -1: nothing is known. */
static int given_to(uint64_t cookie, unsigned asked)
{
    struct mfd_address asked_address = address(asked);
    const struct mfd_name *name = mfd_names_by_asked(&names, cookie, &asked_address);

    return name == NULL ? -1 : name->given.bytes[2] << 8 | name->given.bytes[3];
}

static int asked_by(uint64_t cookie, unsigned given)
{
    struct mfd_address given_address = address(given);
    const struct mfd_name *name = mfd_names_by_given(&names, cookie, &given_address);

    return name == NULL ? -1 : name->asked.bytes[2] << 8 | name->asked.bytes[3];
}

static void a_name_is_found_both_ways(void)
{
    names = (struct mfd_names){0};
    put(7, 1, 1001);
    put(8, 1, 1002);
    CHECK_EQ(given_to(7, 1), 1001);
    CHECK_EQ(given_to(8, 1), 1002);
    CHECK_EQ(given_to(9, 1), -1);
    CHECK_EQ(given_to(7, 2), -1);
    CHECK_EQ(asked_by(7, 1001), 1);
    CHECK_EQ(asked_by(7, 1002), -1);
    put(7, 1, 1003); /* elsewhere now */
    CHECK_EQ(given_to(7, 1), 1003);
    CHECK_EQ(asked_by(7, 1001), -1);
}

static void a_name_ends_when_what_was_given_is_asked_for(void)
{
    struct mfd_address given = address(1001);
    struct mfd_address never = address(1002);

    names = (struct mfd_names){0};
    CHECK_EQ(mfd_names_was_given(&names, &given), false);
    put(7, 1, 1001);
    put(8, 1, 1001);
    CHECK_EQ(mfd_names_was_given(&names, &given), true);
    CHECK_EQ(mfd_names_was_given(&names, &never), false);
    mfd_names_end(&names, 7, &never);
    CHECK_EQ(given_to(7, 1), 1001);
    mfd_names_end(&names, 7, &given);
    CHECK_EQ(given_to(7, 1), -1);
    CHECK_EQ(given_to(8, 1), 1001);
}

static void of_two_that_led_there_the_last_used_is_told(void)
{
    names = (struct mfd_names){0};
    put(7, 1, 1001);
    put(7, 2, 1001);
    CHECK_EQ(asked_by(7, 1001), 2);
    CHECK_EQ(given_to(7, 1), 1001); /* used again */
    CHECK_EQ(asked_by(7, 1001), 1);
}

static void the_name_used_longest_ago_makes_room(void)
{
    unsigned known = 0;

    names = (struct mfd_names){0};
    for (unsigned i = 0; i < 100; i++) {
        put(7, i, 1000 + i);
        CHECK_EQ(given_to(7, 0), 1000); /* in use all the time */
    }
    for (unsigned i = 0; i < 100; i++)
        known += given_to(7, i) >= 0;
    CHECK(known >= 8 && known < 100);
    CHECK_EQ(given_to(7, 99), 1099);
    CHECK_EQ(given_to(7, 1), -1);
}

static void sockets_spread_over_the_table(void)
{
    unsigned known = 0;

    names = (struct mfd_names){0};
    for (uint64_t i = 1; i <= MFD_NAMES_MAX / 2; i++)
        put(i, 1, 1001);
    for (uint64_t i = 1; i <= MFD_NAMES_MAX / 2; i++)
        known += given_to(i, 1) == 1001;
    CHECK(known > MFD_NAMES_MAX / 2 * 99 / 100);
}

int main(void)
{
    a_name_is_found_both_ways();
    a_name_ends_when_what_was_given_is_asked_for();
    of_two_that_led_there_the_last_used_is_told();
    the_name_used_longest_ago_makes_room();
    sockets_spread_over_the_table();
    return check_result();
}
