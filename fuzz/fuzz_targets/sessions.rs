//! The sessions that a worker has at hand: those of a list in the order of use, each counted once.
#![no_main]

use std::rc::Rc;

use fuzz::input::Input;
use libfuzzer_sys::fuzz_target;
use module::balancer::sessions::Sessions;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let capacity = input.below(6);
    let mut sessions = Sessions::new(capacity);
    // The one used last in front.
    let mut model: Vec<(&[u8], Rc<u32>)> = Vec::new();

    let mut value = 0;
    while !input.is_empty() {
        let what = input.below(4);
        let identity = input.text();
        let at = model.iter().position(|(known, _)| *known == identity);
        let known = at.map(|at| model.remove(at));
        match what {
            0 | 1 => {
                value += 1;
                let session = Rc::new(value);
                sessions.put(identity, session.clone());
                model.insert(0, (identity, session));
                model.truncate(capacity);
            }
            2 => {
                let got = sessions.get(identity);
                assert_eq!(got.as_ref(), known.as_ref().map(|(_, session)| session));
                model.splice(0..0, known);
            }
            _ => sessions.remove(identity),
        }
        assert_eq!(sessions.count(), model.len());
        assert!(model.iter().all(|(_, session)| Rc::strong_count(session) == 2));
    }
    drop(sessions);
    assert!(model.iter().all(|(_, session)| Rc::strong_count(session) == 1));
});
