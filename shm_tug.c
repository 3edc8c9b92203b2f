/* SPDX-License-Identifier: MIT */
/*
 * shm_tug: a tug of war in shared memory, with a race on purpose.
 *
 *     left             +-------------------+             right
 *     reads rope <---- | rope: -3          | ----> reads rope
 *     heaves           | pulls: 41 and 38  |           heaves
 *     writes -4  ----> | started           | <---- writes -2
 *                      +-------------------+
 *     arbiter: the rope should be at 38 - 41 = -3. Is it?
 *
 *     ./shm_tug arbiter
 *     ./shm_tug left & ./shm_tug right &      in another terminal
 *
 * shm_open(3), lockf(3), flock(2), alarm(2), pthread_mutexattr_setrobust(3)
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* To experiment, change these lines or use the options. */
static int longest_heave = 10000; /* microseconds */
static long seconds = 10;         /* of the game, or of waiting for it */
enum { TO_WIN = 20, EDGE = 27 };  /* steps from the middle */

struct game {
    pthread_mutex_t mutex;
    int guarded;          /* 1 if a pull needs the mutex */
    _Atomic int ready[2]; /* left, right */
    int started;          /* not atomic, on purpose */
    _Atomic int over;     /* a pull that ends later does not count */
    /* Each load and each store is atomic, but a pull consists of both, so the
       players race for the rope, unless they need the mutex. */
    _Atomic int rope; /* negative on the side of left */
    int pulls[2];     /* by left, by right */
    int lost[2];      /* the opponent's steps that left, right overwrote */
};
static struct game *game;

static enum { LEFT, RIGHT, ARBITER } role;
static const char *name = "/tug_shm";
static int with_mutex, die, fd; /* --lock, --die, the object */

static int create_object(void);
static void play(void), pull(void), lock(void), unlock(void);
static void arbitrate(void), prepare_mutex(void), draw(void), sum_up(void);
static void parse_options(int argc, char *argv[]);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    setvbuf(stdout, NULL, _IONBF, 0);
    srand(getpid());

    fd = role == ARBITER ? create_object() : shm_open(name, O_RDWR, 0);
    if (fd == -1) err(1, "%s: start the arbiter first", name);
    game = mmap(NULL, sizeof *game, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (game == MAP_FAILED) err(1, "%s: mmap", name);

    if (role == ARBITER) arbitrate();
    if (role != ARBITER) play();
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* Players of a killed arbiter might still use the old object, so each game gets
   a new one. The lock belongs to the arbiter as long as it lives. */
static int create_object(void)
{
    int old = shm_open(name, O_RDWR | O_CREAT, 0600);
    if (old == -1) err(1, "%s", name);
    if (lockf(old, F_TLOCK, 0) == -1)
        errx(1, "%s: this game has an arbiter already", name);
    const off_t size = lseek(old, 0, SEEK_END);
    if (size != 0 && size != sizeof *game)
        errx(1, "%s: this is not a game; use another --name", name);
    if (shm_unlink(name) == -1) err(1, "%s: shm_unlink", name);

    int new = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (new == -1) err(1, "%s", name);
    errno = posix_fallocate(new, 0, sizeof *game);
    if (errno != 0) err(1, "%s: posix_fallocate", name);
    return new;
}

static void play(void)
{
    if (lockf(fd, F_TEST, 0) == 0) errx(1, "%s: start the arbiter first", name);
    if (flock(fd, LOCK_SH) == -1) err(1, "%s: flock", name);
    if (atomic_exchange(&game->ready[role], 1) == 1)
        errx(1, "%s: this side has a player already", name);
    printf("[%d] waits for the start, at most %ld s\n", getpid(), seconds);

    /* Compiled with -O2, the loop reads "started" once. SIGALRM ends it. */
    alarm(seconds);
    if (!game->guarded)
        while (!game->started) continue;

    while (!game->over && lockf(fd, F_TEST, 0) == -1) {
        alarm(seconds);
        lock();
        pull();
        unlock();
        usleep(rand() % 10000);
    }
}

/* Read, heave, write. Without the mutex, this overwrites the steps that the
   opponent made meanwhile. atomic_exchange() returns the value that is lost. */
static void pull(void)
{
    const int step = role == LEFT ? -1 : 1;
    int rope = game->rope;
    usleep(rand() % longest_heave);
    if (game->over) return;

    game->pulls[role]++;
    if (die && game->pulls[role] == 5) raise(SIGKILL);
    const int before = atomic_exchange(&game->rope, rope + step);
    game->lost[role] += abs(before - rope);
    if (abs(rope + step) >= TO_WIN) game->over = 1;
}

/* If the owner of a robust mutex dies, the next process that locks it gets
   EOWNERDEAD and repairs the data: the pull was counted, but not made. */
static void lock(void)
{
    if (!game->guarded) return;
    errno = pthread_mutex_lock(&game->mutex);
    if (errno == EOWNERDEAD) {
        const int should = game->pulls[RIGHT] - game->pulls[LEFT];
        printf("EOWNERDEAD: the rope moved from %d to %d\n", game->rope,
               should);
        game->rope = should;
        errno = pthread_mutex_consistent(&game->mutex);
    }
    if (errno != 0) err(1, "mutex");
}

static void unlock(void)
{
    if (game->guarded) pthread_mutex_unlock(&game->mutex);
}

static void arbitrate(void)
{
    if (with_mutex) prepare_mutex();
    lock(); /* nobody pulls before the start */
    if (lockf(fd, F_TLOCK, 0) == -1) err(1, "%s: lockf", name);
    printf("[%d] waits for left and right: %d steps win\n", getpid(), TO_WIN);
    while (!game->ready[LEFT] || !game->ready[RIGHT]) usleep(1000);
    usleep(100000); /* let both see that the game has not started */
    game->started = 1;
    unlock();

    const time_t end = time(NULL) + seconds;
    while (!game->over && time(NULL) <= end) {
        draw();
        usleep(1000000 / 30);
    }

    /* Each player holds a shared lock until it ends. Then nothing changes. */
    game->over = 1;
    if (flock(fd, LOCK_EX) == -1) err(1, "%s: flock", name);
    draw();
    sum_up();
    if (shm_unlink(name) == -1) err(1, "%s: shm_unlink", name);
}

/* Shared, it works between processes. Robust, it survives its owner. */
static void prepare_mutex(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    errno = pthread_mutex_init(&game->mutex, &attributes);
    if (errno != 0) err(1, "mutex");
    game->guarded = 1;
}

/* '#' is the rope, 'o' is where the pulls say that it should be. */
static void draw(void)
{
    if (!isatty(STDOUT_FILENO)) return;
    char ground[] = "-------|-------------------+-------------------|-------";
    const int rope = game->rope;
    const int should = game->pulls[RIGHT] - game->pulls[LEFT];
    if (abs(should) <= EDGE) ground[EDGE + should] = 'o';
    if (abs(rope) <= EDGE) ground[EDGE + rope] = '#';
    printf("%s # at %d, o at %d   \r", ground, rope, should);
}

static void sum_up(void)
{
    const int *pulls = game->pulls, *lost = game->lost;
    const int rope = game->rope, should = pulls[RIGHT] - pulls[LEFT];
    printf("\nright pulled %d times, left %d: the rope should be at %d\n",
           pulls[RIGHT], pulls[LEFT], should);
    printf("it is at %d: %d steps were lost, ", rope, lost[LEFT] + lost[RIGHT]);
    printf("%d overwritten by left, %d by right\n", lost[LEFT], lost[RIGHT]);
    if (rope != should - lost[LEFT] + lost[RIGHT])
        puts("a player was killed after it had counted its last pull");
    if (rope <= -TO_WIN) puts("left wins");
    if (rope >= TO_WIN) puts("right wins");
    if (abs(rope) < TO_WIN) puts("nobody wins");
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {
        {"die", 0, &die, 1},         {"help", 0, NULL, '?'},
        {"lock", 0, &with_mutex, 1}, {"name", 1, NULL, 'n'},
        {"seconds", 1, NULL, 's'},   {NULL, 0, NULL, 0}};
    const char *const roles[] = {"left", "right", "arbiter"};
    char *end = "";
    int option = 0;
    while (option != -1 && option != '?') {
        option = getopt_long_only(argc, argv, "", options, NULL);
        if (option == 'n') name = optarg;
        if (option == 's') seconds = strtol(optarg, &end, 10);
    }
    const int has_seconds = *end == '\0' && seconds > 0 && seconds <= 3600;
    const int has_role = option == -1 && argc == optind + 1;
    for (role = LEFT; has_seconds && has_role && role <= ARBITER; role++)
        if (strcmp(argv[optind], roles[role]) == 0) return;
    errx(2, "usage: shm_tug [--lock] [--die] [--seconds=N] [--name=/NAME]\n"
            "       arbiter | left | right");
}
