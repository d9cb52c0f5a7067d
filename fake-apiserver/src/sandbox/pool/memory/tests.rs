use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

#[test]
fn nothing_is_created_until_every_write_before_has_been_seen() {
    let mut expectations = Expectations::default();
    assert!(expectations.try_creations(2, at(0)));
    assert!(!expectations.try_creations(1, at(1)));
    expectations.lower_creations(1);
    assert!(!expectations.are_met(at(1)));
    expectations.lower_creations(1);
    assert!(expectations.are_met(at(1)));

    expectations.expect_deletion("a", at(2));
    assert!(expectations.is_pending("a", at(2)) && !expectations.is_pending("b", at(2)));
    assert!(!expectations.try_creations(1, at(2)));
    expectations.deletion_seen("a");
    assert!(expectations.try_creations(1, at(2)));
}

#[test]
fn a_write_that_is_never_seen_is_waited_for_five_minutes() {
    let mut expectations = Expectations::default();
    expectations.expect_deletion("a", at(0));
    expectations.expect_deletion("b", at(60));
    assert!(expectations.is_pending("a", at(360)) && !expectations.are_met(at(360)));
    assert!(!expectations.is_pending("a", at(361)) && expectations.are_met(at(361)));
}

#[test]
fn what_was_seen_too_often_counts_as_seen() {
    let mut expectations = Expectations::default();
    expectations.lower_creations(3);
    assert!(expectations.try_creations(1, at(0)));
    expectations.lower_creations(3);
    assert!(expectations.are_met(at(0)));
}

#[test]
fn each_drop_begins_the_wait_anew_but_neither_a_first_fill_nor_a_scale_up_waits() {
    const DELAY: Duration = Duration::from_secs(10);
    let mut replenish = Replenish::default();
    assert_eq!(replenish.observe(0, 3, DELAY, at(0)), None, "first fill");
    replenish.created(3);
    assert_eq!(replenish.observe(3, 5, DELAY, at(1)), None, "scale-up");
    assert_eq!(replenish.observe(2, 5, DELAY, at(2)), Some(DELAY));
    assert_eq!(replenish.observe(2, 5, DELAY, at(7)), Some(Duration::from_secs(5)));
    assert_eq!(replenish.observe(1, 5, DELAY, at(8)), Some(DELAY));
    assert_eq!(replenish.observe(1, 5, DELAY, at(18)), None);
    assert_eq!(replenish.observe(0, 5, DELAY, at(19)), Some(DELAY));
    assert_eq!(replenish.observe(5, 5, DELAY, at(20)), None, "a full pool forgets it");
    assert_eq!(Replenish::default().observe(0, 3, Duration::ZERO, at(0)), None);
}

#[test]
fn a_rate_gives_one_seconds_worth_at_once_and_then_so_many_per_second() {
    let mut refill = Refill::default();
    assert_eq!(refill.take(5, 2.0, at(0)), (2, Some(Duration::from_millis(500))));
    assert_eq!(refill.take(3, 2.0, at(0)), (0, Some(Duration::from_millis(500))));
    assert_eq!(refill.take(3, 2.0, at(1)), (2, Some(Duration::from_millis(500))));
    refill.give_back(2, 2.0);
    assert_eq!(refill.take(1, 2.0, at(1)), (1, None));
    assert_eq!(refill.take(9, 2.0, at(100)).0, 2, "an idle pool saves up no more than that");
}

#[test]
fn a_rate_below_one_gives_one_at_a_time_and_none_gives_any_number() {
    let mut slow = Refill::default();
    assert_eq!(slow.take(2, 0.1, at(0)), (1, Some(Duration::from_secs(10))));
    assert_eq!(slow.take(1, 0.1, at(9)).0, 0);
    assert_eq!(slow.take(1, 0.1, at(10)), (1, None));
    assert_eq!(Refill::default().take(1_000, 0.0, at(0)), (1_000, None));
    assert_eq!(Refill::default().take(1_000, f64::MAX, at(0)), (1_000, None));
}
