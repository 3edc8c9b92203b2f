/* SPDX-License-Identifier: MIT */
/*
 * shm_tug: a tug of war in shared memory, invalid on purpose.
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
 * shm_open(3), pthread_mutexattr_setrobust(3), pthread_mutex_consistent(3)
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* To experiment, change these lines, or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;
static int guarded;               /* by the mutex: the arbiter decides */
static int seconds = 10;          /* of the game, or of waiting for it */
static int longest_heave = 10000; /* microseconds */

enum { TO_WIN = 20 };     /* steps */
enum { KIND = 0x677574 }; /* "tug": by this an object of ours is known */

struct game {
    int kind;          /* KIND, written before all the rest */
    _Atomic int ready; /* when all the rest is */
    _Atomic int guarded;
    _Atomic int waits[2]; /* left, right: for the start */
    _Atomic int over;
    pthread_mutex_t mutex;
    /* These are raced for on purpose, unless the mutex guards them. */
    int started;
    int rope;            /* below 0 it is on the side of left */
    int pulls[2];        /* of left, of right */
    int written_over[2]; /* steps of the other one, by left, by right */
    int died;            /* so many owners of the mutex */
};
static struct game *game;

static enum { LEFT, RIGHT, ARBITER } role;
static const char *const roles[] = {"left", "right", "arbiter"};
static const char *name = "/tug_shm";
static int die; /* at the fifth pull, with the mutex */

static volatile int fd;             /* the handlers of signals use it, too */
static volatile sig_atomic_t owned; /* the object goes with this process */
static int drawn;                   /* the rope stands in the last line */

static void play(void);
static void wait_for_the_start(void);
static void pull(void);
static void lock(void);
static void repair(void);
static void unlock(void);
static void prepare_mutex(void);
static void arbitrate(void);
static void wait_for_the_players(void);
static void wait_for_their_end(void);
static void sum_up(int won);
static int count_players(void);
static void draw(int rope, int should, int lost);
static void end_drawing(void);
static double now(void);
static void check(int error, const char *what);
static void create_game(void);
static void find_game(void);
static int take(int who);
static int is_there(int who);
static void remove_object(void);
static void remove_owned_object(void);
static void end_by_signal(int number);
static void explain_sigbus(void);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static int on_terminal(void);
static void catch_signals(void (*handler)(int));
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    setvbuf(stdout, NULL, _IOLBF, 0); /* also when it is a pipe or a file */
    srand(getpid());
    explain_sigbus();

    if (role == ARBITER)
        create_game();
    else
        find_game();
    game = mmap(NULL, sizeof *game, prot, flags, fd, 0);
    if (game == MAP_FAILED) err(1, "%s: mmap", name);

    if (role == ARBITER) {
        if (guarded) prepare_mutex();
        arbitrate();
        flush_stdout();
        remove_object();
    } else {
        play();
    }
    flush_stdout();
}

/* SIGALRM ends a player to whom nothing happens. */
static void play(void)
{
    printf("[%d] waits for the start, at most %d s\n", getpid(), seconds);
    flush_stdout();
    alarm(seconds);
    while (!game->ready) usleep(1000);
    game->waits[role] = 1;
    wait_for_the_start();

    while (!game->over && is_there(ARBITER)) {
        alarm(seconds);
        lock();
        pull();
        unlock();
        usleep(rand() % 10000);
    }
    printf("[%d] %s has pulled %d times\n", getpid(), roles[role],
           game->pulls[role]);
}

static void wait_for_the_start(void)
{
    if (!game->guarded) {
        while (!game->started) continue; /* with -O2, it is read only once */
        return;
    }
    int started = 0;
    while (!started && is_there(ARBITER)) {
        usleep(1000);
        lock();
        started = game->started;
        unlock();
    }
}

/* Read, heave, write. Without the mutex, what the other one writes meanwhile is
   written over: then the rope moves by more than this one step. */
static void pull(void)
{
    const int step = role == LEFT ? -1 : 1;
    game->pulls[role]++;

    int rope = game->rope;
    if (die && game->pulls[role] == 5) raise(SIGKILL);
    usleep(rand() % longest_heave);
    const int before = game->rope;
    game->rope = rope + step;

    game->written_over[role] += abs(game->rope - (before + step));
}

/* A mutex does not become free when its owner dies. A robust one says so to
   the next one that wants it, who is then its owner. */
static void lock(void)
{
    if (!game->guarded) return;
    const struct timespec limit = {.tv_sec = time(NULL) + seconds + 2};
    int error = pthread_mutex_timedlock(&game->mutex, &limit);
    if (error == EOWNERDEAD) {
        repair();
        error = pthread_mutex_consistent(&game->mutex);
    }
    if (error == ETIMEDOUT) errx(1, "mutex: its owner does not give it back");
    check(error, "mutex");
}

/* Who died may have counted a pull and not moved the rope: it is moved now. */
static void repair(void)
{
    const int should = game->pulls[RIGHT] - game->pulls[LEFT];
    end_drawing();
    printf("[%d] EOWNERDEAD: the owner of the mutex died; rope repaired "
           "from %d to %d\n",
           getpid(), game->rope, should);
    game->rope = should;
    game->died++;
}

static void unlock(void)
{
    if (!game->guarded) return;
    check(pthread_mutex_unlock(&game->mutex), "mutex");
}

/* Process-shared: it works between processes, in memory that they share.
   Robust: it survives its owner. */
static void prepare_mutex(void)
{
    pthread_mutexattr_t attributes;
    check(pthread_mutexattr_init(&attributes), "mutex");
    check(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED),
          "mutex: process-shared");
    check(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST),
          "mutex: robust");
    check(pthread_mutex_init(&game->mutex, &attributes), "mutex");
}

static void arbitrate(void)
{
    game->guarded = guarded;
    game->ready = 1;
    printf("[%d] waits for left and right: %d steps win\n", getpid(), TO_WIN);
    flush_stdout();
    wait_for_the_players();
    lock();
    game->started = 1;
    unlock();

    const double end = now() + seconds;
    int won = 0, players = 2;
    while (!won && players > 0 && now() < end) {
        usleep(1000000 / 30);
        lock();
        const int rope = game->rope;
        const int should = game->pulls[RIGHT] - game->pulls[LEFT];
        const int lost = game->written_over[LEFT] + game->written_over[RIGHT];
        unlock();
        draw(rope, should, lost);
        won = abs(rope) >= TO_WIN;
        players = count_players();
    }
    end_drawing();
    game->over = 1;
    wait_for_their_end();
    sum_up(won);
}

/* At last they get a moment to see that the game has not started yet. */
static void wait_for_the_players(void)
{
    int both_wait = 0;
    while (!both_wait) {
        usleep(1000);
        const int players = count_players();
        both_wait = players == 2 && game->waits[LEFT] && game->waits[RIGHT];
    }
    usleep(100000);
}

/* Then nobody writes any more, and the numbers of the sum agree. */
static void wait_for_their_end(void)
{
    const double end = now() + 2; /* some are stopped, or in an endless loop */
    int there = 1;
    while (there && now() < end) {
        usleep(1000);
        there = is_there(LEFT) || is_there(RIGHT);
    }
}

/* The reader can recompute it: what left has written over were steps to the
   right, so should - written_over[LEFT] + written_over[RIGHT] is where the rope
   is. The last pulls may come when the winner is known already. */
static void sum_up(int won)
{
    lock();
    const int rope = game->rope;
    const int left = game->pulls[LEFT], right = game->pulls[RIGHT];
    const int by_left = game->written_over[LEFT];
    const int by_right = game->written_over[RIGHT];
    const int died = game->died;
    unlock();

    const char *leader = "nobody";
    if (rope < 0) leader = "left";
    if (rope > 0) leader = "right";
    printf("%s %s\n", leader, won ? "wins" : "leads");
    printf("right has pulled %d times, left %d: the rope should be at "
           "%d - %d = %d\n",
           right, left, right, left, right - left);
    printf("it is at %d: lost are %d steps, %d written over by left, "
           "%d by right\n",
           rope, by_left + by_right, by_left, by_right);
    if (died > 0) printf("EOWNERDEAD: %d owner of the mutex died\n", died);
}

/* Who was there and is not any more is told once. */
static int count_players(void)
{
    static int was_there[2];
    int count = 0;
    for (int side = LEFT; side <= RIGHT; side++) {
        const int there = is_there(side);
        if (was_there[side] && !there) {
            end_drawing();
            printf("[%d] %s has gone\n", getpid(), roles[side]);
        }
        was_there[side] = there;
        if (there) count++;
    }
    return count;
}

static int within_the_rope(int place)
{
    if (place < -TO_WIN) return -TO_WIN;
    if (place > TO_WIN) return TO_WIN;
    return place;
}

/* '#' is the rope, 'o' where the pulls say that it should be, '+' the middle.
   In a narrow terminal a character is two steps. */
static void draw(int rope, int should, int lost)
{
    struct winsize window = {.ws_col = 0};
    if (!on_terminal()) return;
    ioctl(STDOUT_FILENO, TIOCGWINSZ, &window);
    const int width = window.ws_col > 0 ? window.ws_col : 80;
    const int steps = width < 80 ? 2 : 1;

    char ground[2 * TO_WIN + 2] = "", line[120];
    const int middle = TO_WIN / steps;
    memset(ground, '-', 2 * middle + 1);
    ground[middle] = '+';
    ground[middle + within_the_rope(should) / steps] = 'o';
    ground[middle + within_the_rope(rope) / steps] = '#';
    if (steps == 1)
        snprintf(line, sizeof line, "|%s| # %d  o should be %d  lost %d",
                 ground, rope, should, lost);
    else
        snprintf(line, sizeof line, "|%s| #%d o%d", ground, rope, should);
    /* Cut or filled to this width, it covers the line before, and no more. */
    printf("\r%-*.*s", width - 1, width - 1, line);
    flush_stdout();
    drawn = 1;
}

static void end_drawing(void)
{
    if (drawn) printf("\n");
    drawn = 0;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* The calls of pthread return the error. */
static void check(int error, const char *what)
{
    if (error != 0) errx(1, "%s: %s", what, strerror(error));
}

/* Signals wait until it is known who owns the object, and so removes it. */
static void create_object(void)
{
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd == -1 && errno != EEXIST) err(1, "%s: shm_open to create it", name);
    owned = fd != -1;
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* Anybody may have put it there: is it an object of this user? */
static struct stat look_at_object(void)
{
    struct stat status;
    if (fstat(fd, &status) == -1) err(1, "%s", name);
    if (!S_ISREG(status.st_mode)) errx(1, "%s: not a regular file", name);
    if (status.st_uid != geteuid())
        errx(1, "%s: belongs to user %u", name, status.st_uid);
    const off_t size = status.st_size;
    /* Its arbiter may not have come further, or have been killed there. */
    const int begun = size == 0 || size == sizeof game->kind;
    if (!begun && size != sizeof *game)
        errx(1, "%s: not a game of shm_tug", name);
    return status;
}

/* An arbiter that was killed has left its object. The players of its game may
   still be there, so the next game gets an object of its own. */
static void remove_dead_arbiters_object(void)
{
    int kind = KIND; /* an empty one is ours, too: its arbiter died at once */
    fd = shm_open(name, O_RDWR | O_NONBLOCK, 0); /* not to wait at a FIFO */
    if (fd == -1 && errno == ENOENT) return;     /* just removed */
    if (fd == -1) err(1, "%s", name);
    look_at_object();
    if (!take(ARBITER)) errx(1, "%s: has an arbiter already", name);
    if (pread(fd, &kind, sizeof kind, 0) == -1) err(1, "%s", name);
    if (kind != KIND) errx(1, "%s: not a game of shm_tug", name);
    remove_object();
    close(fd);
}

/* The bytes are reserved: when /dev/shm is full, that is an error here, which
   posix_fallocate() returns, and not SIGBUS later. */
static void create_game(void)
{
    struct stat status = {.st_nlink = 0};
    atexit(remove_owned_object);
    catch_signals(end_by_signal);

    /* Another arbiter may find the new object before this one has locked it,
       and remove it as a dead one's: then it has lost its name. */
    while (status.st_nlink == 0) {
        create_object();
        if (!owned) {
            remove_dead_arbiters_object();
            continue;
        }
        if (!take(ARBITER)) {
            owned = 0; /* now it is the other one's to remove */
            errx(1, "%s: has an arbiter already", name);
        }
        if (fstat(fd, &status) == -1) err(1, "%s", name);
    }

    const int kind = KIND;
    signal(SIGXFSZ, SIG_IGN); /* a limit is an error, too */
    if (pwrite(fd, &kind, sizeof kind, 0) == -1) err(1, "%s", name);
    errno = posix_fallocate(fd, 0, sizeof *game);
    if (errno != 0) err(1, "%s", name);
}

static void find_game(void)
{
    fd = shm_open(name, O_RDWR | O_NONBLOCK, 0); /* not to wait at a FIFO */
    if (fd == -1 && errno == ENOENT)
        errx(1, "%s: start the arbiter first", name);
    if (fd == -1) err(1, "%s", name);
    struct stat status = look_at_object();
    if (!is_there(ARBITER)) errx(1, "%s: start the arbiter first", name);
    for (int i = 0; i < 1000 && status.st_size != sizeof *game; i++) {
        usleep(1000); /* it has just been created */
        status = look_at_object();
    }
    if (status.st_size != sizeof *game)
        errx(1, "%s: the arbiter is not ready", name);
    if (!take(role)) errx(1, "%s: %s plays already", name, roles[role]);
}

/* Who plays? Each has locked a byte of the object for itself. The kernel lets
   only one do so, and frees the byte when that one ends, however it ends. */
static int take(int who)
{
    const struct flock byte = {.l_type = F_WRLCK, .l_start = who, .l_len = 1};
    if (fcntl(fd, F_SETLK, &byte) == 0) return 1;
    if (errno != EACCES && errno != EAGAIN) err(1, "%s: fcntl", name);
    return 0;
}

static int is_there(int who)
{
    struct flock byte = {.l_type = F_WRLCK, .l_start = who, .l_len = 1};
    if (fcntl(fd, F_GETLK, &byte) == -1) err(1, "%s: fcntl", name);
    return byte.l_type != F_UNLCK;
}

/* Only what is still ours: somebody may have removed it, and made another. */
static void remove_object(void)
{
    struct stat status;
    if (fstat(fd, &status) == -1) err(1, "%s", name);
    if (status.st_nlink == 0) return;
    if (shm_unlink(name) == -1) err(1, "%s: shm_unlink", name);
}

/* The same for an end by an error or a signal, where nothing can be said. To
   call it in a handler is safe: fstat() is so, and shm_unlink() is unlink(). */
static void remove_owned_object(void)
{
    struct stat status;
    if (!owned) return;
    if (fstat(fd, &status) == -1) return;
    if (status.st_nlink > 0) shm_unlink(name);
}

/* Because of SA_RESETHAND the second signal kills. */
static void end_by_signal(int number)
{
    remove_owned_object();
    raise(number);
}

/* Somebody has truncated the object. The fault is in our own loads and stores,
   so stdio works here. Returning runs the instruction again; because of
   SA_RESETHAND it then kills. */
static void explain_fault(int number, siginfo_t *info, void *context)
{
    struct stat status = {.st_size = 0};
    (void)number;
    (void)context;
    fstat(fd, &status);
    fprintf(stderr,
            "shm_tug: SIGBUS, beyond the end of the object: byte %td of %lld, "
            "at %p\n",
            (char *)info->si_addr - (char *)game, (long long)status.st_size,
            info->si_addr);
    remove_owned_object();
}

static void explain_sigbus(void)
{
    const struct sigaction action = {.sa_sigaction = explain_fault,
                                     .sa_flags = SA_SIGINFO | SA_RESETHAND};
    sigaction(SIGBUS, &action, NULL);
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: shm_tug [OPTION]... arbiter | left | right\n"
         "left and right pull; arbiter starts them, looks on and sums up.\n"
         "  --name=/NAME  the name of the object (/tug_shm)\n"
         "  --lock        arbiter: all use a mutex\n"
         "  --seconds=N   arbiter: the longest game; a player: the longest\n"
         "                wait (10)\n"
         "  --die         a player: kill -9 in the middle of the fifth pull\n"
         "example: shm_tug arbiter & sleep 1; shm_tug left & shm_tug right");
    flush_stdout();
    exit(0);
}

static long long parse_number(const char *text, long long least, long long most)
{
    const long long number = strtoll(text, NULL, 10);
    if (*text == '\0' || text[strspn(text, "0123456789")] != '\0')
        errx(2, "%s: not a number", text);
    if (number < least || number > most)
        errx(2, "%s: not from %lld to %lld", text, least, most);
    return number;
}

static void choose_role(const char *word)
{
    if (strcmp(word, "left") == 0)
        role = LEFT;
    else if (strcmp(word, "right") == 0)
        role = RIGHT;
    else if (strcmp(word, "arbiter") == 0)
        role = ARBITER;
    else
        errx(2, "%s: not arbiter, left or right", word);
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {
        {"die", 0, &die, 1},       {"help", 0, NULL, 'h'},
        {"lock", 0, &guarded, 1},  {"name", 1, NULL, 'n'},
        {"seconds", 1, NULL, 's'}, {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'h': usage(); break;
        case 'n': name = optarg; break;
        case 's': seconds = parse_number(optarg, 1, 9999); break;
        case '?': exit(2);
        }
    if (*name != '/') errx(2, "--name=%s: begins with no slash", name);
    if (argc != optind + 1)
        errx(2, "want one of arbiter, left and right; try --help");
    choose_role(argv[optind]);
}

/* With stdout closed, open() would return 1, and printf() fill the file.
   A closed stdin is an empty one. */
static void check_streams(void)
{
    if (fcntl(STDOUT_FILENO, F_GETFD) == -1) err(1, "stdout");
    if (fcntl(STDERR_FILENO, F_GETFD) == -1) err(1, "stderr");
    if (fcntl(STDIN_FILENO, F_GETFD) != -1) return;
    if (open("/dev/null", O_RDONLY) == -1) err(1, "/dev/null");
}

/* A process in the background would draw over the shell. */
static int on_terminal(void)
{
    return tcgetpgrp(STDOUT_FILENO) == getpgrp();
}

/* The end by a signal is cleaned up after. What was ignored at the start, as
   SIGHUP is by nohup(1), stays ignored. */
static void catch_signals(void (*handler)(int))
{
    const int signals[] = {SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};
    const struct sigaction action = {.sa_handler = handler,
                                     .sa_flags = SA_RESETHAND};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction before;
        sigaction(signals[i], NULL, &before);
        if (before.sa_handler != SIG_IGN) sigaction(signals[i], &action, NULL);
    }
}

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
